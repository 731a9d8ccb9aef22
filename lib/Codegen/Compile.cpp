//===- Compile.cpp - Kernels to one relocation-free image -----------------===//

#include "dshard/Codegen/Compile.h"
#include "Link.h"
#include "Lower.h"
#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/Analysis/TargetLibraryInfo.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include "llvm/Linker/Linker.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Host.h"

#include <mutex>

using namespace mlir;
using namespace mlir::dshard;

//===----------------------------------------------------------------------===//
// Targets
//===----------------------------------------------------------------------===//

::dshard::Result<CpuTarget> mlir::dshard::getCpuTarget(StringRef spec) {
  static const char *const v3[] = {"avx",  "avx2", "bmi",   "bmi2",
                                   "f16c", "fma",  "lzcnt", "movbe"};
  static const char *const v4[] = {"avx512f", "avx512bw", "avx512cd",
                                   "avx512dq", "avx512vl"};
  StringRef arch = spec;
  if (arch.consume_front("cpu") && (arch.empty() || arch.consume_front(":"))) {
    if (arch.empty() || arch == "native") {
      llvm::StringMap<bool> host = llvm::sys::getHostCPUFeatures();
      auto hasAll = [&](ArrayRef<const char *> names) {
        return llvm::all_of(
            names, [&](const char *name) { return host.lookup(name); });
      };
      if (!hasAll(v3))
        return ::dshard::Status::error(
            "this CPU is below x86-64-v3 (no AVX2, FMA or F16C), which "
            "generated code needs; name a target with --target=cpu:x86-64-v3 "
            "to compile for another machine");
      arch = hasAll(v4) ? "x86-64-v4" : "x86-64-v3";
    }
    CpuTarget target;
    if (arch == "x86-64-v3" || arch == "x86-64-v4") {
      target.name = ("cpu:" + arch).str();
      target.cpu = arch.str();
      target.features.assign(std::begin(v3), std::end(v3));
      if (arch == "x86-64-v4") {
        target.features.insert(target.features.end(), std::begin(v4),
                               std::end(v4));
        target.vectorBits = 512;
      }
      return target;
    }
  }
  return ::dshard::Status::error(
      "unknown target '" + spec.str() +
      "'; targets are cpu, cpu:native, cpu:x86-64-v3, cpu:x86-64-v4, "
      "cuda:sm_80, cuda:sm_90 and cuda:sm_100");
}

//===----------------------------------------------------------------------===//
// MLIR to LLVM IR
//===----------------------------------------------------------------------===//

void mlir::dshard::registerCodegenDialects(DialectRegistry &registry) {
  registry.insert<arith::ArithDialect, cf::ControlFlowDialect,
                  LLVM::LLVMDialect, math::MathDialect, scf::SCFDialect,
                  ub::UBDialect, vector::VectorDialect>();
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
}

LogicalResult mlir::dshard::lowerToLLVM(ModuleOp kernels) {
  MLIRContext *context = kernels.getContext();
  RewritePatternSet patterns(context);
  populateMathPolynomialApproximationPatterns(patterns, [](StringRef name) {
    return name == math::ExpOp::getOperationName() ||
           name == math::LogOp::getOperationName() ||
           name == math::TanhOp::getOperationName() ||
           name == math::ErfOp::getOperationName();
  });
  GreedyRewriteConfig config;
  config.setRegionSimplificationLevel(GreedySimplifyRegionLevel::Disabled);
  if (failed(applyPatternsGreedily(kernels, std::move(patterns), config)))
    return kernels.emitError("math functions of kernels did not expand");
  PassManager passes(context);
  passes.enableVerifier(false);
  passes.addPass(createCSEPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertVectorToLLVMPass());
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createUBToLLVMConversionPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
  return passes.run(kernels);
}

/// What LLVM may call however it is told not to; dropped where it does not.
static const char *const freestandingFunctions = R"(
define hidden ptr @memset(ptr %out, i32 %value, i64 %size) #0 {
entry:
  %byte = trunc i32 %value to i8
  %none = icmp eq i64 %size, 0
  br i1 %none, label %exit, label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %at = getelementptr i8, ptr %out, i64 %i
  store i8 %byte, ptr %at
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %size
  br i1 %done, label %exit, label %loop
exit:
  ret ptr %out
}
define hidden ptr @memcpy(ptr %out, ptr %in, i64 %size) #0 {
entry:
  %none = icmp eq i64 %size, 0
  br i1 %none, label %exit, label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %from = getelementptr i8, ptr %in, i64 %i
  %at = getelementptr i8, ptr %out, i64 %i
  %byte = load i8, ptr %from
  store i8 %byte, ptr %at
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %size
  br i1 %done, label %exit, label %loop
exit:
  ret ptr %out
}
attributes #0 = { nounwind "no-builtins" }
)";

//===----------------------------------------------------------------------===//
// LLVM IR to object code
//===----------------------------------------------------------------------===//

static std::unique_ptr<llvm::TargetMachine>
createTargetMachine(const CpuTarget &target, std::string &error) {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
  });
  llvm::Triple triple("x86_64-unknown-linux-gnu");
  const llvm::Target *backend =
      llvm::TargetRegistry::lookupTarget(triple, error);
  if (!backend)
    return nullptr;
  llvm::TargetOptions options;
  return std::unique_ptr<llvm::TargetMachine>(backend->createTargetMachine(
      triple, target.cpu, "", options, llvm::Reloc::PIC_,
      llvm::CodeModel::Small, llvm::CodeGenOptLevel::Aggressive));
}

/// Contracts, and runs LLVM's O3 without any library function.
void mlir::dshard::optimize(llvm::Module &module,
                            llvm::TargetMachine &machine) {
  for (llvm::Function &function : module)
    for (llvm::BasicBlock &block : function)
      for (llvm::Instruction &instruction : block)
        // Not on conversions: two roundings must not become one. Not on
        // differences: a * b - c must be 0 where c is that product, rounded (a
        // softmax over masked scores of -1e9 subtracts their largest).
        if (isa<llvm::BinaryOperator>(instruction) &&
            isa<llvm::FPMathOperator>(instruction) &&
            instruction.getOpcode() != llvm::Instruction::FSub)
          instruction.setHasAllowContract(true);
  llvm::PassBuilder builder(&machine);
  llvm::TargetLibraryInfoImpl library(machine.getTargetTriple());
  library.disableAllFunctions();
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager graphs;
  llvm::ModuleAnalysisManager modules;
  functions.registerPass([&] { return llvm::TargetLibraryAnalysis(library); });
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(graphs);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, graphs, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3)
      .run(module, modules);
}

static LogicalResult emitObject(ModuleOp kernels, const CpuTarget &target,
                                SmallVectorImpl<char> &object) {
  std::string error;
  std::unique_ptr<llvm::TargetMachine> machine =
      createTargetMachine(target, error);
  if (!machine)
    return kernels.emitError("no code generator for ")
           << target.name << ": " << error;
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> module =
      translateModuleToLLVMIR(kernels, context, "kernels");
  if (!module)
    return kernels.emitError("kernels did not translate to LLVM IR");
  llvm::SMDiagnostic diagnostic;
  std::unique_ptr<llvm::Module> helpers =
      llvm::parseAssemblyString(freestandingFunctions, diagnostic, context);
  if (!helpers || llvm::Linker::linkModules(*module, std::move(helpers)))
    return kernels.emitError("the kernels' own memset and memcpy did not link");
  module->setDataLayout(machine->createDataLayout());
  module->setTargetTriple(machine->getTargetTriple());
  module->setPICLevel(llvm::PICLevel::BigPIC);
  std::string width = std::to_string(target.vectorBits);
  for (llvm::Function &function : *module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", target.cpu);
    function.addFnAttr("prefer-vector-width", width);
    function.addFnAttr("no-builtins");
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }

  optimize(*module, *machine);
  llvm::raw_svector_ostream stream(object);
  llvm::legacy::PassManager emission;
  if (machine->addPassesToEmitFile(emission, stream, nullptr,
                                   llvm::CodeGenFileType::ObjectFile))
    return kernels.emitError("the code generator cannot write object files");
  emission.run(*module);
  return success();
}

FailureOr<KernelImage> mlir::dshard::compileKernels(ModuleOp kernels,
                                                    const CpuTarget &target) {
  std::vector<std::string> names;
  for (auto function : kernels.getOps<LLVM::LLVMFuncOp>())
    names.push_back(function.getName().str());
  SmallVector<char, 0> object;
  if (failed(lowerToLLVM(kernels)) ||
      failed(emitObject(kernels, target, object)))
    return failure();
  ::dshard::Result<KernelImage> image = linkImage(object, names);
  if (!image)
    return kernels.emitError(image.status().message()), failure();
  return std::move(*image);
}
