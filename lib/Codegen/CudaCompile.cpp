//===- CudaCompile.cpp - Kernels to PTX text ------------------------------===//

#include "Lower.h"
#include "dshard/Codegen/CompileCuda.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

#include <mutex>

using namespace mlir;
using namespace mlir::dshard;

::dshard::Result<CudaTarget> mlir::dshard::getCudaTarget(StringRef spec) {
  StringRef arch = spec;
  if (arch.consume_front("cuda") && (arch.empty() || arch.consume_front(":"))) {
    if (arch.empty())
      arch = "sm_90";
    for (int known : {80, 90, 100})
      if (arch == "sm_" + std::to_string(known))
        return CudaTarget{("cuda:" + arch).str(), known};
  }
  return ::dshard::Status::error(
      "unknown target '" + spec.str() +
      "'; targets with a GPU are cuda (cuda:sm_90), cuda:sm_80, cuda:sm_90 and "
      "cuda:sm_100");
}

static std::unique_ptr<llvm::TargetMachine>
createTargetMachine(const CudaTarget &target, std::string &error) {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
  });
  llvm::Triple triple("nvptx64-nvidia-cuda");
  const llvm::Target *backend =
      llvm::TargetRegistry::lookupTarget(triple, error);
  if (!backend)
    return nullptr;
  // The oldest PTX that knows the architecture well: old drivers read it.
  const char *features = target.arch >= 100 ? "+ptx86" : "+ptx78";
  llvm::TargetOptions options;
  return std::unique_ptr<llvm::TargetMachine>(backend->createTargetMachine(
      triple, "sm_" + std::to_string(target.arch), features, options,
      llvm::Reloc::PIC_, std::nullopt, llvm::CodeGenOptLevel::Aggressive));
}

FailureOr<std::string>
mlir::dshard::compileCudaKernels(ModuleOp kernels, const CudaTarget &target) {
  std::string error;
  std::unique_ptr<llvm::TargetMachine> machine =
      createTargetMachine(target, error);
  if (!machine)
    return kernels.emitError("no code generator for ")
               << target.name << ": " << error,
           failure();
  if (failed(lowerToLLVM(kernels)))
    return failure();
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> module =
      translateModuleToLLVMIR(kernels, context, "kernels");
  if (!module)
    return kernels.emitError("kernels did not translate to LLVM IR"), failure();
  module->setDataLayout(machine->createDataLayout());
  module->setTargetTriple(machine->getTargetTriple());
  for (llvm::Function &function : *module) {
    if (function.isDeclaration()) {
      if (!function.isIntrinsic())
        return kernels.emitError("kernels call '")
                   << function.getName().str() << "', which PTX does not have",
               failure();
      continue;
    }
    function.addFnAttr("no-builtins");
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }
  optimize(*module, *machine);
  SmallString<0> text;
  llvm::raw_svector_ostream stream(text);
  llvm::legacy::PassManager emission;
  if (machine->addPassesToEmitFile(emission, stream, nullptr,
                                   llvm::CodeGenFileType::AssemblyFile))
    return kernels.emitError("the code generator cannot write PTX"), failure();
  emission.run(*module);
  return std::string(text.str());
}
