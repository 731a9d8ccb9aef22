//===- DimExpression.cpp - Symbolic dims ----------------------------------===//

#include "DimExpression.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CheckedArithmetic.h"

using namespace mlir::dshard::onnx;
using llvm::StringRef;

namespace {

/// Recursive descent; evaluates while it parses. `wellFormed` is about the text
/// alone, the values are missing where a symbol is.
class Parser {
public:
  Parser(StringRef text, const SymbolSizes *sizes) : text(text), sizes(sizes) {}

  std::optional<int64_t> parse() {
    std::optional<int64_t> value = sum();
    skipSpace();
    wellFormed &= text.empty();
    return value;
  }
  bool wellFormed = true;
  std::vector<std::string> symbols;

private:
  using Value = std::optional<int64_t>;

  void skipSpace() { text = text.ltrim(); }
  bool take(StringRef token) {
    skipSpace();
    return text.consume_front(token);
  }
  template <typename Function>
  static Value apply(Value left, Value right, Function function) {
    return left && right ? function(*left, *right) : std::nullopt;
  }
  static Value floorDivide(int64_t left, int64_t right) {
    if (right == 0 || (left == INT64_MIN && right == -1))
      return std::nullopt;
    int64_t quotient = left / right;
    return quotient - ((left % right != 0) && ((left < 0) != (right < 0)));
  }
  static Value power(int64_t base, int64_t exponent) {
    Value result = 1;
    if (exponent < 0 || exponent > 64)
      return std::nullopt;
    for (; exponent > 0 && result; --exponent)
      result = llvm::checkedMul(*result, base);
    return result;
  }

  Value sum() {
    Value left = product();
    while (wellFormed) {
      if (take("+"))
        left = apply(left, product(), llvm::checkedAdd<int64_t>);
      else if (take("-"))
        left = apply(left, product(), llvm::checkedSub<int64_t>);
      else
        break;
    }
    return left;
  }
  Value product() {
    Value left = factor();
    while (wellFormed) {
      if (take("//") || take("/"))
        left = apply(left, factor(), floorDivide);
      else if (take("%"))
        left = modulo(left, factor());
      else if (!StringRef(text.ltrim()).starts_with("**") && take("*"))
        left = apply(left, factor(), llvm::checkedMul<int64_t>);
      else
        break;
    }
    return left;
  }
  static Value modulo(Value left, Value right) {
    return apply(left, right, [](int64_t a, int64_t b) -> Value {
      Value quotient = floorDivide(a, b);
      return quotient ? Value(a - *quotient * b) : std::nullopt;
    });
  }
  Value factor() {
    // A counter, not the stack, ends hostile nesting.
    if (++depth > 64)
      return ill();
    Value value;
    if (take("-")) {
      value = apply(0, factor(), llvm::checkedSub<int64_t>);
    } else {
      value = atom();
      if (wellFormed && take("**"))
        value = apply(value, factor(), power);
    }
    --depth;
    return value;
  }
  Value atom() {
    skipSpace();
    if (take("(")) {
      Value value = sum();
      return take(")") ? value : ill();
    }
    if (text.empty())
      return ill();
    if (llvm::isDigit(text.front())) {
      StringRef digits = text.take_while(llvm::isDigit);
      text = text.drop_front(digits.size());
      int64_t value;
      return digits.getAsInteger(10, value) ? std::nullopt : Value(value);
    }
    auto inName = [](char c) {
      return llvm::isAlnum(c) || c == '_' || c == '.' || c == ':';
    };
    StringRef name = text.take_while(inName);
    if (name.empty())
      return ill();
    text = text.drop_front(name.size());
    if (take("("))
      return call(name);
    if (llvm::find(symbols, name) == symbols.end())
      symbols.push_back(name.str());
    if (!sizes)
      return std::nullopt;
    auto found = sizes->find(name);
    return found == sizes->end() ? std::nullopt : Value(found->second);
  }
  Value call(StringRef name) {
    Value left = sum();
    do {
      if (!take(","))
        return ill();
      Value right = sum();
      if (name.equals_insensitive("min"))
        left = apply(left, right, [](int64_t a, int64_t b) {
          return Value(std::min(a, b));
        });
      else if (name.equals_insensitive("max"))
        left = apply(left, right, [](int64_t a, int64_t b) {
          return Value(std::max(a, b));
        });
      else if (name.equals_insensitive("mod"))
        left = modulo(left, right);
      else
        return ill();
    } while (wellFormed && !take(")"));
    return left;
  }
  Value ill() {
    wellFormed = false;
    return std::nullopt;
  }

  StringRef text;
  const SymbolSizes *sizes;
  int depth = 0;
};

} // namespace

std::vector<std::string> mlir::dshard::onnx::symbolsOf(StringRef text) {
  Parser parser(text, nullptr);
  parser.parse();
  if (parser.wellFormed)
    return parser.symbols;
  return {text.str()};
}

std::optional<int64_t>
mlir::dshard::onnx::evaluateDim(StringRef text, const SymbolSizes &sizes) {
  if (auto found = sizes.find(text); found != sizes.end())
    return found->second;
  Parser parser(text, &sizes);
  std::optional<int64_t> value = parser.parse();
  return parser.wellFormed ? value : std::nullopt;
}
