//===- Explain.cpp - Every collective, with its reason --------------------===//

#include "dshard/Conversion/DShardToPlan/DShardToPlan.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Pipelines/Pipelines.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::dshard;

void mlir::dshard::explainCollectives(ModuleOp module, raw_ostream &os) {
  std::vector<std::array<std::string, 5>> rows = {
      {"collective", "axes", "bytes", "why", "node"}};
  double total = 0;
  module.walk([&](Operation *op) {
    auto axes = op->getAttrOfType<ArrayAttr>("axes");
    auto why = op->getAttrOfType<StringAttr>("why");
    if (!axes || !why || isa<LocalSliceOp>(op))
      return;
    double bytes = 0;
    // A receive has no operand; its result is what was sent.
    for (Value operand : isa<RecvOp>(op) ? ValueRange(op->getResults())
                                         : ValueRange(op->getOperands()))
      if (auto type = dyn_cast<RankedTensorType>(operand.getType()))
        bytes += static_cast<double>(type.getNumElements()) *
                 getElementBytes(type.getElementType());
    total += bytes;
    std::string text;
    llvm::raw_string_ostream stream(text);
    for (auto axis : axes.getAsRange<AxisRefAttr>()) {
      stream << (text.empty() ? "" : ",") << axis.getName().getValue();
      if (!axis.isWhole())
        stream << ":(" << axis.getPre() << ")" << axis.getSize();
    }
    rows.push_back({op->getName().stripDialect().str(), text,
                    llvm::formatv("{0:F0}", bytes).str(), why.getValue().str(),
                    nodeOf(op->getLoc())});
  });
  std::array<size_t, 5> widths = {};
  for (const auto &row : rows)
    for (auto [width, cell] : llvm::zip(widths, row))
      width = std::max(width, cell.size());
  for (const auto &row : rows) {
    for (auto [width, cell] : llvm::zip(widths, row))
      os << llvm::left_justify(cell, width + 2);
    os << "\n";
  }
  os << rows.size() - 1 << " collectives, " << llvm::formatv("{0:F0}", total)
     << " bytes of operands per rank\n";
}
