//===- Einsum.cpp - ONNX Einsum -------------------------------------------===//
//
// Operands are contracted from left to right. Each product is one batched
// matmul over the dims that both have and that are still needed (batch), both
// have and nobody needs any more (contracted), and only one has.
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

namespace {
/// A value whose dims have labels: letters, and numbers from 256 on for the
/// dims of an ellipsis.
struct Term {
  Value value;
  std::vector<int> labels;
};
} // namespace

static constexpr int firstEllipsis = 256;

/// "ab..." into labels; an ellipsis stands for `wide` dims, numbered from the
/// right.
static std::optional<std::vector<int>> parseLabels(NodeImporter &n,
                                                   StringRef text, int wide) {
  std::vector<int> labels;
  bool seen = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (llvm::isAlpha(c)) {
      labels.push_back(c);
    } else if (text.substr(i).starts_with("...") && !seen) {
      seen = true;
      i += 2;
      for (int d = wide - 1; d >= 0; --d)
        labels.push_back(firstEllipsis + d);
    } else {
      n.fail("equation has " + quote(text) + ", which is not understood");
      return std::nullopt;
    }
  }
  return labels;
}

static int64_t position(const std::vector<int> &labels, int label) {
  auto found = llvm::find(labels, label);
  return found == labels.end() ? -1 : found - labels.begin();
}

/// Of labels that stand twice only the diagonal counts.
static void takeDiagonals(NodeImporter &n, Term &term) {
  for (size_t i = 0; i < term.labels.size() && !n.failed(); ++i)
    for (size_t j = term.labels.size() - 1; j > i && !n.failed(); --j) {
      if (term.labels[i] != term.labels[j])
        continue;
      int64_t size = n.shape(term.value)[i];
      if (n.shape(term.value)[j] != size)
        return n.fail("a label stands for sizes " + Twine(size) + " and " +
                      Twine(n.shape(term.value)[j]));
      Type i64 = n.graph.builder().getI64Type();
      SmallVector<int64_t> a(n.rank(term.value), 1), b(a);
      a[i] = b[j] = size;
      Value same =
          n.compare(ComparePredicate::eq, n.iota(a, i64, i), n.iota(b, i64, j));
      Value kept = n.pointwise<SelectOp>(
          {same, term.value, n.scalar(n.elementOf(term.value), 0)},
          n.elementOf(term.value));
      term.value =
          n.reduce(ReductionKind::sum, kept, {static_cast<int64_t>(j)}, false);
      term.labels.erase(term.labels.begin() + j);
    }
}

/// Sums over the labels that nobody needs.
static void sumOver(NodeImporter &n, Term &term,
                    llvm::function_ref<bool(int)> isNeeded) {
  SmallVector<int64_t> dims;
  std::vector<int> kept;
  for (auto [i, label] : llvm::enumerate(term.labels))
    if (isNeeded(label))
      kept.push_back(label);
    else
      dims.push_back(i);
  term.value = n.reduce(ReductionKind::sum, term.value, dims, false);
  term.labels = kept;
}

/// Transposed into the order of `labels`, all of which it has.
static Value ordered(NodeImporter &n, const Term &term,
                     const std::vector<int> &labels) {
  SmallVector<int64_t> permutation;
  for (int label : labels)
    permutation.push_back(position(term.labels, label));
  return n.transpose(term.value, permutation);
}

static int64_t sizeOf(NodeImporter &n, const Term &term, int label) {
  return n.shape(term.value)[position(term.labels, label)];
}

/// lhs * rhs, summed over what is contracted.
static Term multiply(NodeImporter &n, Term lhs, Term rhs,
                     llvm::function_ref<bool(int)> isNeeded) {
  // Dims of size 1 beside larger ones are repeated: they belong to one side.
  for (Term *term : {&lhs, &rhs}) {
    const Term &other = term == &lhs ? rhs : lhs;
    for (size_t i = 0; i < term->labels.size() && !n.failed();) {
      int label = term->labels[i];
      int64_t mine = n.shape(term->value)[i];
      if (position(other.labels, label) < 0 || mine != 1 ||
          sizeOf(n, other, label) == 1) {
        ++i;
        continue;
      }
      SmallVector<int64_t> shape(n.shape(term->value));
      shape.erase(shape.begin() + i);
      term->value = n.reshape(term->value, shape);
      term->labels.erase(term->labels.begin() + i);
    }
  }
  if (n.failed())
    return {};
  auto onlyHere = [&](const Term &other) {
    return [&](int label) {
      return isNeeded(label) || position(other.labels, label) >= 0;
    };
  };
  sumOver(n, lhs, onlyHere(rhs));
  sumOver(n, rhs, onlyHere(lhs));
  if (n.failed())
    return {};
  std::vector<int> batch, contracted, left, right;
  for (int label : lhs.labels) {
    bool both = position(rhs.labels, label) >= 0;
    if (both && sizeOf(n, lhs, label) != sizeOf(n, rhs, label)) {
      n.fail("a label stands for sizes " + Twine(sizeOf(n, lhs, label)) +
             " and " + Twine(sizeOf(n, rhs, label)));
      return {};
    }
    (!both ? left : isNeeded(label) ? batch : contracted).push_back(label);
  }
  for (int label : rhs.labels)
    if (position(lhs.labels, label) < 0)
      right.push_back(label);
  auto join = [](std::initializer_list<const std::vector<int> *> parts) {
    std::vector<int> all;
    for (const std::vector<int> *part : parts)
      all.insert(all.end(), part->begin(), part->end());
    return all;
  };
  std::vector<int> resultLabels = join({&batch, &left, &right});
  auto sizes = [&](const Term &term, const std::vector<int> &labels) {
    SmallVector<int64_t> result;
    for (int label : labels)
      result.push_back(sizeOf(n, term, label));
    return result;
  };
  auto product = [](ArrayRef<int64_t> list) {
    int64_t result = 1;
    for (int64_t size : list)
      result *= size;
    return result;
  };
  SmallVector<int64_t> batchSizes = sizes(lhs, batch),
                       leftSizes = sizes(lhs, left),
                       rightSizes = sizes(rhs, right), resultSizes(batchSizes);
  llvm::append_range(resultSizes, leftSizes);
  llvm::append_range(resultSizes, rightSizes);
  int64_t m = product(leftSizes), k = product(sizes(lhs, contracted)),
          width = product(rightSizes);
  Value a = ordered(n, lhs, join({&batch, &left, &contracted})),
        b = ordered(n, rhs, join({&batch, &contracted, &right}));
  auto matrix = [&](Value value, int64_t rows, int64_t columns) {
    SmallVector<int64_t> shape(batchSizes);
    shape.push_back(rows);
    shape.push_back(columns);
    return n.reshape(value, shape);
  };
  if (contracted.empty() || !isa<FloatType>(n.elementOf(a))) {
    // Products without a sum, or of integers.
    SmallVector<int64_t> wideA(batchSizes), wideB(batchSizes);
    wideA.append({m, 1, k});
    wideB.append({1, width, k});
    Value moved = ordered(n, rhs, join({&batch, &right, &contracted}));
    Value products =
        n.pointwise<MulOp>({n.reshape(a, wideA), n.reshape(moved, wideB)});
    if (n.failed())
      return {};
    Value sum =
        n.reduce(ReductionKind::sum, products, n.rank(products) - 1, false);
    return {n.reshape(sum, resultSizes), resultLabels};
  }
  Value result = n.matmul(matrix(a, m, k), matrix(b, k, width), false, false);
  return {n.reshape(result, resultSizes), resultLabels};
}

void onnx::importEinsum(NodeImporter &n) {
  if (!n.expectInputs(1, INT32_MAX))
    return;
  std::string equation = n.stringAttr("equation", "");
  equation.erase(llvm::remove_if(equation, llvm::isSpace), equation.end());
  auto [left, right] = StringRef(equation).split("->");
  bool isExplicit = StringRef(equation).contains("->");
  SmallVector<StringRef> texts;
  left.split(texts, ',');
  if (n.failed())
    return;
  if (static_cast<int>(texts.size()) != n.numInputs())
    return n.fail("equation " + quote(equation) + " has " +
                  Twine(texts.size()) + " operands, the node has " +
                  Twine(n.numInputs()));
  std::vector<Term> terms;
  int widest = 0;
  for (auto [i, text] : llvm::enumerate(texts)) {
    Value value = n.input(i);
    if (!value)
      return;
    if (n.elementOf(value) != n.elementOf(n.input(0)))
      return n.fail("element types of the operands differ");
    int letters = static_cast<int>(
        llvm::count_if(text, [](char c) { return llvm::isAlpha(c); }));
    bool open = text.contains("...");
    int wide = static_cast<int>(n.rank(value)) - letters;
    if (wide < 0 || (wide > 0 && !open))
      return n.fail("operand " + Twine(i) + " " + quote(text) + " has " +
                    Twine(letters) + " labels for " + Twine(n.rank(value)) +
                    " dims");
    auto labels = parseLabels(n, text, wide);
    if (!labels)
      return;
    widest = std::max(widest, open ? wide : 0);
    terms.push_back({value, *labels});
  }
  std::vector<int> output;
  if (isExplicit) {
    auto labels = parseLabels(n, right, widest);
    if (!labels)
      return;
    output = *labels;
  } else {
    for (int d = widest - 1; d >= 0; --d)
      output.push_back(firstEllipsis + d);
    // Every letter that stands once, in order.
    for (int c = 0; c < firstEllipsis; ++c)
      if (llvm::isAlpha(static_cast<char>(c)) && left.count(char(c)) == 1)
        output.push_back(c);
  }
  for (auto [i, label] : llvm::enumerate(output)) {
    if (llvm::none_of(terms, [&, l = label](const Term &term) {
          return position(term.labels, l) >= 0;
        }))
      return n.fail("equation " + quote(equation) +
                    " has a label in its result that no operand has");
    if (static_cast<size_t>(position(output, label)) != i)
      return n.fail("equation " + quote(equation) +
                    " has a label twice in its result");
  }
  for (Term &term : terms)
    takeDiagonals(n, term);
  if (n.failed())
    return;
  Term result = terms.front();
  for (size_t i = 1; i <= terms.size() && !n.failed(); ++i) {
    auto isNeeded = [&](int label) {
      if (position(output, label) >= 0)
        return true;
      for (size_t later = i + 1; later < terms.size(); ++later)
        if (position(terms[later].labels, label) >= 0)
          return true;
      return false;
    };
    if (i < terms.size())
      result = multiply(n, result, terms[i], isNeeded);
    else
      sumOver(n, result, isNeeded);
  }
  if (!n.failed())
    n.set(0, ordered(n, result, output));
}
