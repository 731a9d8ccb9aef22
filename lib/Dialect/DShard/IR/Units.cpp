//===- Units.cpp - What is gathered together ------------------------------===//

#include "dshard/Dialect/DShard/IR/Units.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "llvm/ADT/StringExtras.h"
#include <map>

using namespace mlir;
using namespace mlir::dshard;

static bool isNumber(StringRef text) {
  return !text.empty() && llvm::all_of(text, llvm::isDigit);
}

/// "a.b.c" -> "a.b"; "a" -> "".
static StringRef getParent(StringRef path) {
  return path.contains('.') ? path.rsplit('.').first : StringRef();
}

StringRef mlir::dshard::getModuleOf(Operation *op) {
  StringAttr path = getPathOf(op);
  return path ? path.getValue() : StringRef();
}

/// All module paths of ops, with the modules around them.
static std::set<std::string> collectPaths(func::FuncOp function) {
  std::set<std::string> paths;
  function.walk([&](Operation *op) {
    for (StringRef path = getModuleOf(op); !path.empty();
         path = getParent(path))
      if (!paths.insert(path.str()).second)
        break;
  });
  return paths;
}

/// The elements of the longest numbered list; of equally long ones the first.
static std::set<std::string> findList(const std::set<std::string> &paths) {
  std::map<StringRef, std::set<std::string>> lists;
  for (StringRef path : paths)
    if (path.contains('.') && isNumber(path.rsplit('.').second))
      lists[getParent(path)].insert(path.str());
  std::set<std::string> longest;
  for (const auto &[prefix, elements] : lists)
    if (elements.size() > longest.size())
      longest = elements;
  return longest;
}

static bool matches(StringRef glob, StringRef path) {
  SmallVector<StringRef> wanted, parts;
  glob.split(wanted, '.');
  path.split(parts, '.');
  return wanted.size() == parts.size() &&
         llvm::all_of(llvm::zip(wanted, parts), [](auto pair) {
           return std::get<0>(pair) == "*" ||
                  std::get<0>(pair) == std::get<1>(pair);
         });
}

FailureOr<Units> Units::find(func::FuncOp function, StringRef glob) {
  Units units;
  std::set<std::string> paths = collectPaths(function);
  if (glob.empty()) {
    units.names = findList(paths);
  } else {
    std::set<std::string> general;
    for (StringRef path : paths) {
      if (matches(glob, path))
        units.names.insert(path.str());
      SmallVector<StringRef> parts;
      path.split(parts, '.');
      for (StringRef &part : parts)
        if (isNumber(part))
          part = "*";
      general.insert(llvm::join(parts, "."));
    }
    if (units.names.empty())
      return emitError(UnknownLoc::get(function.getContext()))
             << "--fsdp-unit=" << glob << " matches no module; the modules are "
             << llvm::join(general, ", ");
  }
  std::set<std::string> seen;
  function.walk<WalkOrder::PreOrder>([&](Operation *op) {
    std::string unit = units.getUnitOf(getModuleOf(op));
    if (!unit.empty() && seen.insert(unit).second)
      units.last = unit;
  });
  return units;
}

std::string Units::getUnitOf(StringRef path) const {
  for (; !path.empty(); path = getParent(path))
    if (names.count(path.str()))
      return path.str();
  return "";
}

std::string Units::getUnitOf(BlockArgument parameter) const {
  std::optional<std::string> unit;
  for (Operation *user : parameter.getUsers()) {
    // The gradients and updates of all units may be one module's.
    auto part = user->getAttrOfType<PartAttr>("part");
    if (part && part.getValue() != Part::forward)
      continue;
    std::string own = getUnitOf(getModuleOf(user));
    if (unit && *unit != own)
      return "";
    unit = own;
  }
  return unit.value_or("");
}

std::vector<std::string> Units::getNamesInOrder() const {
  std::vector<std::string> result(names.begin(), names.end());
  // Paths of one list differ in their numbers only: the shorter is smaller.
  llvm::stable_sort(result, [](const std::string &a, const std::string &b) {
    return std::pair(a.size(), StringRef(a)) <
           std::pair(b.size(), StringRef(b));
  });
  return result;
}
