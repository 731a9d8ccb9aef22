//===- KernelTests.cpp - Generated kernels against the reference ----------===//
//
// Every op, over odd and even shapes and all element types: one function per
// case is interpreted, compiled as one kernel, loaded by the runtime's own
// loader and run, in one piece and in pieces of its grain.
//
//===----------------------------------------------------------------------===//

#include "KernelCases.h"
#include "dshard/Codegen/Compile.h"
#include "dshard/Codegen/KernelEmitter.h"
#include "dshard/Runtime/Cpu/KernelImage.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

#include <cstdlib>
#include <cstring>

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::testing;

namespace {

void run(const std::vector<Case> &cases, const char *target) {
  ::dshard::Result<CpuTarget> cpu = getCpuTarget(target);
  ASSERT_TRUE(cpu.ok()) << cpu.status().message();
  DialectRegistry registry;
  registry.insert<DShardDialect, func::FuncDialect>();
  registerCodegenDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();
  ModuleOp kernels = ModuleOp::create(UnknownLoc::get(&context));
  OwningOpRef<ModuleOp> owner(kernels);

  std::vector<Prepared> prepared(cases.size());
  std::vector<KernelInfo> infos;
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_TRUE(prepare(cases[i], context, prepared[i]));
    FailureOr<KernelInfo> info =
        emitKernel(prepared[i].fused, kernels, "k" + std::to_string(i));
    ASSERT_TRUE(succeeded(info)) << cases[i].name;
    infos.push_back(*info);
  }
  FailureOr<KernelImage> image = compileKernels(kernels, *cpu);
  ASSERT_TRUE(succeeded(image));
  auto loaded = ::dshard::cpu::KernelImage::load(
      reinterpret_cast<const uint8_t *>(image->bytes.data()),
      image->bytes.size());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();

  for (size_t i = 0; i < cases.size(); ++i) {
    Prepared &p = prepared[i];
    auto function =
        (*loaded)->function(image->entries.lookup("k" + std::to_string(i)));
    ASSERT_TRUE(function.ok()) << function.status().message();
    std::vector<void *> buffers;
    auto allocate = [&](RankedTensorType type) {
      uint64_t bytes = type.getNumElements() * bytesOf(type.getElementType());
      void *memory = std::aligned_alloc(64, (bytes + 64) / 64 * 64 + 64);
      std::memset(memory, 0x5a, (bytes + 64) / 64 * 64 + 64);
      buffers.push_back(memory);
      return static_cast<char *>(memory);
    };
    for (const HostTensor &tensor : p.arguments) {
      char *memory = allocate(tensor.type);
      Type element = tensor.type.getElementType();
      for (int64_t e = 0; e < tensor.size(); ++e)
        write(memory + e * bytesOf(element), element, tensor.data[e]);
    }
    for (const HostTensor &tensor : p.expected)
      allocate(tensor.type);
    ASSERT_EQ(infos[i].buffers, static_cast<int64_t>(buffers.size()));
    for (int64_t begin = 0; begin < infos[i].extent; begin += infos[i].grain)
      (*function)(buffers.data(), begin,
                  std::min(infos[i].extent, begin + infos[i].grain));
    for (size_t r = 0; r < p.expected.size(); ++r) {
      const HostTensor &want = p.expected[r];
      const char *memory = static_cast<char *>(buffers[p.arguments.size() + r]);
      compare(cases[i], r, want, memory);
      // Nothing was written behind the end.
      int64_t end = want.size() * bytesOf(want.type.getElementType());
      for (int64_t byte = end; byte < end + 32; ++byte)
        ASSERT_EQ(memory[byte], 0x5a) << cases[i].name;
    }
    for (void *memory : buffers)
      std::free(memory);
  }
}

TEST(Kernels, Pointwise) { run(pointwiseCases(), "cpu"); }
TEST(Kernels, Others) { run(otherCases(), "cpu:x86-64-v3"); }
TEST(Kernels, Fused) { run(fusedCases(), "cpu:x86-64-v3"); }
TEST(Kernels, Training) { run(trainingCases(), "cpu:x86-64-v3"); }

TEST(Kernels, ExtremeValuesDoNotTrap) {
  // Division by zero, the least integer by -1, NaN and infinity to integers.
  run({op("div", {"tensor<2xf32>", "tensor<2xf32>"}, "tensor<2xf32>", "", 0, 0),
       op("cast", {"tensor<20xf32>"}, "tensor<20xi8>", "", -120, 120)},
      "cpu");
}

/// Compiles LLVM dialect text and gives the first error.
std::string compileError(const char *text) {
  DialectRegistry registry;
  registerCodegenDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();
  OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(text, &context);
  if (!module)
    return "the text does not parse";
  std::string error;
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    if (error.empty())
      error = diagnostic.str();
  });
  FailureOr<KernelImage> image =
      compileKernels(*module, *getCpuTarget("cpu:x86-64-v3"));
  return succeeded(image) ? "" : error;
}

TEST(Images, NeedNothingFromOutside) {
  EXPECT_EQ(compileError(R"(
    llvm.func @k(%b: !llvm.ptr, %i: i64, %n: i64) { llvm.return })"),
            "");
  std::string call = compileError(R"(
    llvm.func @expf(f32) -> f32
    llvm.func @k(%b: !llvm.ptr, %i: i64, %n: i64) {
      %x = llvm.load %b : !llvm.ptr -> f32
      %y = llvm.call @expf(%x) : (f32) -> f32
      llvm.store %y, %b : f32, !llvm.ptr
      llvm.return
    })");
  EXPECT_NE(call.find("undefined symbol: expf"), std::string::npos) << call;
  std::string pointer = compileError(R"(
    llvm.mlir.global internal constant @x(1 : i32) : i32
    llvm.mlir.global @p() : !llvm.ptr {
      %0 = llvm.mlir.addressof @x : !llvm.ptr
      llvm.return %0 : !llvm.ptr
    }
    llvm.func @k(%b: !llvm.ptr, %i: i64, %n: i64) { llvm.return })");
  EXPECT_NE(pointer.find("kernels need dynamic relocations"), std::string::npos)
      << pointer;
}

TEST(Targets, UnknownIsAnError) {
  EXPECT_FALSE(getCpuTarget("cpu:pentium").ok());
  EXPECT_FALSE(getCpuTarget("cuda:sm_90").ok());
  ASSERT_TRUE(getCpuTarget("cpu:x86-64-v4").ok());
  EXPECT_EQ(getCpuTarget("cpu:x86-64-v4")->name, "cpu:x86-64-v4");
}

} // namespace
