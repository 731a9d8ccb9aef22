//===- Register.cpp - Dialects and passes of the command line -------------===//

#include "dshard/Conversion/DShardToPlan/Passes.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Dialect/Plan/IR/PlanOps.h"
#include "dshard/Pipelines/Pipelines.h"
#include "dshard/Transforms/Graph/Passes.h"
#include "dshard/Transforms/Local/Passes.h"
#include "dshard/Transforms/Partition/Passes.h"
#include "dshard/Transforms/Propagate/Passes.h"
#include "dshard/Transforms/Strategy/Passes.h"
#include "dshard/Transforms/Train/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

void mlir::dshard::registerAllDialects(DialectRegistry &registry) {
  registry.insert<DShardDialect, plan::PlanDialect, func::FuncDialect>();
}

void mlir::dshard::registerAllPasses() {
  registerTransformsPasses(); // upstream: canonicalize and the like
  registerGraphPasses();
  registerTrainPasses();
  registerStrategyPasses();
  registerPropagatePasses();
  registerPartitionPasses();
  registerLocalPasses();
  registerDShardToPlanPasses();
}
