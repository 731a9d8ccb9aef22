//===- Decompose.cpp - A program in its simplest ops ----------------------===//
#include "dshard/Reference/Decompose.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

unsigned mlir::dshard::decomposeAll(Operation *root) {
  SmallVector<Operation *> worklist;
  root->walk([&](Operation *op) { worklist.push_back(op); });
  unsigned count = 0;
  while (!worklist.empty()) {
    Operation *op = worklist.pop_back_val();
    auto composite = dyn_cast<DecomposeInterface>(op);
    if (!composite)
      continue;
    Block *block = op->getBlock();
    Operation *before = op->getPrevNode();
    OpBuilder builder(op);
    SmallVector<Value> results;
    if (failed(composite.decompose(builder, op->getOperands(), results)))
      continue;
    for (Operation *it = before ? before->getNextNode() : &block->front();
         it != op; it = it->getNextNode())
      worklist.push_back(it); // a decomposition may have one itself
    op->replaceAllUsesWith(results);
    op->erase();
    ++count;
  }
  return count;
}
