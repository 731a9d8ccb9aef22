// Types.h and Functions.def against a CUDA toolkit, where there is one: every
// value and layout that the runtime relies on (the checks are the compiler's),
// every entry point, and what cuBLASLt takes without a GPU.

#include "Cuda/Driver.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#ifdef DSHARD_CUDA_HEADERS
#include <cublasLt.h>
#include <cuda.h>

#define SAME(ours, theirs)                                                     \
  static_assert(                                                               \
      static_cast<long long>(ours) == static_cast<long long>(theirs), #theirs)
#define SAME_PLACE(ours, theirs)                                               \
  static_assert(offsetof(::dshard::cuda::CopyRows, ours) ==                    \
                    offsetof(CUDA_MEMCPY2D, theirs),                           \
                #theirs)

namespace dshard::cuda {
SAME(errorOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
SAME(errorNoDevice, CUDA_ERROR_NO_DEVICE);
SAME(errorNotReady, CUDA_ERROR_NOT_READY);
SAME(attributeMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(attributeMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(streamNonBlocking, CU_STREAM_NON_BLOCKING);
SAME(eventTiming, CU_EVENT_DEFAULT);
SAME(eventDisableTiming, CU_EVENT_DISABLE_TIMING);
SAME(functionMaxDynamicShared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(jitErrorLog, CU_JIT_ERROR_LOG_BUFFER);
SAME(jitErrorLogBytes, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
static_assert(sizeof(DevicePointer) == sizeof(CUdeviceptr), "CUdeviceptr");
static_assert(sizeof(DeviceId) == sizeof(CUdevice), "CUdevice");
static_assert(sizeof(CopyRows) == sizeof(CUDA_MEMCPY2D), "CUDA_MEMCPY2D");
SAME(CopyRows().fromKind, CU_MEMORYTYPE_DEVICE);
SAME_PLACE(fromX, srcXInBytes);
SAME_PLACE(fromY, srcY);
SAME_PLACE(fromKind, srcMemoryType);
SAME_PLACE(from, srcDevice);
SAME_PLACE(fromPitch, srcPitch);
SAME_PLACE(toX, dstXInBytes);
SAME_PLACE(toY, dstY);
SAME_PLACE(toKind, dstMemoryType);
SAME_PLACE(to, dstDevice);
SAME_PLACE(toPitch, dstPitch);
SAME_PLACE(width, WidthInBytes);
SAME_PLACE(height, Height);

static_assert(sizeof(MatmulAlgorithm) == sizeof(cublasLtMatmulAlgo_t), "algo");
static_assert(sizeof(MatmulHeuristic) ==
                  sizeof(cublasLtMatmulHeuristicResult_t),
              "cublasLtMatmulHeuristicResult_t");
static_assert(offsetof(MatmulHeuristic, workspaceBytes) ==
                  offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize),
              "workspaceSize");
static_assert(offsetof(MatmulHeuristic, state) ==
                  offsetof(cublasLtMatmulHeuristicResult_t, state),
              "state");
SAME(blasF32, CUDA_R_32F);
SAME(blasF16, CUDA_R_16F);
SAME(blasBf16, CUDA_R_16BF);
SAME(computeF32, CUBLAS_COMPUTE_32F);
SAME(descriptionTransposeA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(descriptionTransposeB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(descriptionEpilogue, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME(descriptionBiasPointer, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME(descriptionBiasType, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE);
SAME(layoutBatchCount, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT);
SAME(layoutBatchStride, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
SAME(preferenceWorkspace, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(preferenceAlignment[0], CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(preferenceAlignment[1], CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(preferenceAlignment[2], CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(preferenceAlignment[3], CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(epilogueNone, CUBLASLT_EPILOGUE_DEFAULT);
SAME(epilogueRelu, CUBLASLT_EPILOGUE_RELU);
SAME(epilogueGelu, CUBLASLT_EPILOGUE_GELU);
SAME(epilogueBias, CUBLASLT_EPILOGUE_BIAS);
SAME(epilogueRelu + epilogueBias, CUBLASLT_EPILOGUE_RELU_BIAS);
SAME(epilogueGelu + epilogueBias, CUBLASLT_EPILOGUE_GELU_BIAS);
SAME(0, CUBLAS_STATUS_SUCCESS);
SAME(1, CUBLAS_OP_T); // transposed is true
} // namespace dshard::cuda

#if __has_include(<nccl.h>)
// After the others: it has the same enumerators.
#include <nccl.h>
namespace dshard::cuda {
static_assert(sizeof(NcclId) == sizeof(ncclUniqueId), "ncclUniqueId");
SAME(NcclType::ncclI8, ::ncclInt8);
SAME(NcclType::ncclU8, ::ncclUint8);
SAME(NcclType::ncclI32, ::ncclInt32);
SAME(NcclType::ncclU32, ::ncclUint32);
SAME(NcclType::ncclI64, ::ncclInt64);
SAME(NcclType::ncclU64, ::ncclUint64);
SAME(NcclType::ncclF16, ::ncclFloat16);
SAME(NcclType::ncclF32, ::ncclFloat32);
SAME(NcclType::ncclF64, ::ncclFloat64);
SAME(NcclType::ncclBf16, ::ncclBfloat16);
SAME(NcclOp::ncclSum, ::ncclSum);
SAME(NcclOp::ncclProduct, ::ncclProd);
SAME(NcclOp::ncclMax, ::ncclMax);
SAME(NcclOp::ncclMin, ::ncclMin);
SAME(NcclOp::ncclMean, ::ncclAvg);
SAME(::dshard::cuda::ncclInProgress, ::ncclInProgress);
SAME(0, ::ncclSuccess);
} // namespace dshard::cuda
#endif
#endif // DSHARD_CUDA_HEADERS

TEST(CudaToolkit, HasTheValuesOfTypes) {
#ifndef DSHARD_CUDA_HEADERS
  GTEST_SKIP() << "no CUDA toolkit when this was compiled";
#endif
}

static const std::string toolkit = "/usr/local/cuda/lib64/";

/// Null under the sanitizers, which find what is NVIDIA's.
static void *openFrom(const std::vector<std::string> &names) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
  return nullptr;
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
  return nullptr;
#endif
  for (const std::string &name : names)
    if (void *library = dlopen((toolkit + name).c_str(), RTLD_NOW | RTLD_LOCAL))
      return library;
  return nullptr;
}

TEST(CudaToolkit, HasEveryEntryPoint) {
  void *driver = openFrom({"stubs/libcuda.so"});
  void *blas = openFrom({"libcublasLt.so.13", "libcublasLt.so.12"});
  void *nccl = openFrom({"libnccl.so.2"});
  if (!driver && !blas && !nccl)
    GTEST_SKIP() << "no libraries in " << toolkit;
#define LOOK(library, symbol)                                                  \
  if (library)                                                                 \
    EXPECT_NE(dlsym(library, #symbol), nullptr) << #symbol;
#define DSHARD_CUDA_DRIVER(member, symbol, arguments) LOOK(driver, symbol)
#define DSHARD_CUDA_DRIVER_OPTIONAL(member, symbol, arguments)                 \
  LOOK(driver, symbol)
#define DSHARD_CUDA_BLAS(member, symbol, result, arguments) LOOK(blas, symbol)
#define DSHARD_CUDA_NCCL(member, symbol, result, arguments) LOOK(nccl, symbol)
#include "dshard/Runtime/Cuda/Functions.def"
#undef LOOK
}

// Attributes are checked when they are set, long before there is a GPU.
TEST(CudaToolkit, BlasTakesTheAttributes) {
  using namespace dshard::cuda;
  void *handle = openFrom({"libcublasLt.so.13", "libcublasLt.so.12"});
  if (!handle)
    GTEST_SKIP() << "no cuBLASLt in " << toolkit;
  BlasLibrary library;
#define DSHARD_CUDA_BLAS(member, symbol, result, arguments)                    \
  library.member =                                                             \
      reinterpret_cast<decltype(library.member)>(dlsym(handle, #symbol));
#include "dshard/Runtime/Cuda/Functions.def"
  MatmulDescription description = nullptr;
  MatrixLayout layout = nullptr;
  MatmulPreference preference = nullptr;
  ASSERT_EQ(library.descriptionCreate(&description, computeF32, blasF32), 0);
  ASSERT_EQ(library.layoutCreate(&layout, blasBf16, 64, 32, 64), 0);
  ASSERT_EQ(library.preferenceCreate(&preference), 0);
  auto describe = [&](int attribute, auto value) {
    EXPECT_EQ(
        library.descriptionSet(description, attribute, &value, sizeof(value)),
        0)
        << attribute;
  };
  describe(descriptionTransposeA, int32_t{1});
  describe(descriptionTransposeB, int32_t{0});
  for (int32_t epilogue :
       {epilogueNone + 0, epilogueRelu + 0, epilogueGelu + 0, epilogueBias,
        epilogueRelu + epilogueBias, epilogueGelu + epilogueBias})
    describe(descriptionEpilogue, epilogue);
  describe(descriptionBiasPointer, static_cast<const void *>(handle));
  describe(descriptionBiasType, int32_t{blasBf16});
  int32_t batch = 3;
  int64_t stride = 4096;
  EXPECT_EQ(library.layoutSet(layout, layoutBatchCount, &batch, sizeof(batch)),
            0);
  EXPECT_EQ(
      library.layoutSet(layout, layoutBatchStride, &stride, sizeof(stride)), 0);
  uint64_t workspace = 32 << 20;
  EXPECT_EQ(library.preferenceSet(preference, preferenceWorkspace, &workspace,
                                  sizeof(workspace)),
            0);
  for (int attribute : preferenceAlignment) {
    uint32_t alignment = 4;
    EXPECT_EQ(library.preferenceSet(preference, attribute, &alignment,
                                    sizeof(alignment)),
              0);
  }
  // Another size than the attribute's is refused: so the sizes were right.
  EXPECT_NE(
      library.preferenceSet(preference, preferenceAlignment[0], &workspace, 1),
      0);
  EXPECT_EQ(library.preferenceDestroy(preference), 0);
  EXPECT_EQ(library.layoutDestroy(layout), 0);
  EXPECT_EQ(library.descriptionDestroy(description), 0);
}
