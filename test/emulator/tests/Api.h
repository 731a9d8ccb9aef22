//===- Api.h - The emulator's entry points, for its tests -------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_TESTS_API_H
#define DSHARD_EMULATOR_TESTS_API_H

#include "Driver/Cuda.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuDeviceGetCount(int *);
int cuCtxSetCurrent(void *);
int cuCtxSynchronize();
int cuMemAlloc_v2(uint64_t *, size_t);
int cuMemFree_v2(uint64_t);
int cuMemGetInfo_v2(size_t *, size_t *);
int cuMemAllocHost_v2(void **, size_t);
int cuMemFreeHost(void *);
int cuMemcpyHtoDAsync_v2(uint64_t, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, uint64_t, size_t, void *);
int cuMemcpyDtoDAsync_v2(uint64_t, uint64_t, size_t, void *);
int cuMemcpy2DAsync_v2(const dshard::emulator::CuCopyRows *, void *);
int cuMemsetD8Async(uint64_t, unsigned char, size_t, void *);
int cuMemsetD32Async(uint64_t, unsigned, size_t, void *);
int cuStreamCreate(void **, unsigned);
int cuStreamSynchronize(void *);
int cuStreamWaitEvent(void *, void *, unsigned);
int cuEventCreate(void **, unsigned);
int cuEventRecord(void *, void *);
int cuEventSynchronize(void *);
int cuEventElapsedTime_v2(float *, void *, void *);
int cuModuleLoadDataEx(void **, const void *, unsigned, int *, void **);
int cuModuleGetFunction(void **, void *, const char *);
int cuFuncSetAttribute(void *, int, int);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned,
                   unsigned, unsigned, void *, void **, void **);
int cuGetErrorString(int, const char **);
int cublasLtMatmulDescCreate(void **, int, int);
int cublasLtMatmulDescSetAttribute(void *, int, const void *, size_t);
int cublasLtMatrixLayoutCreate(void **, int, uint64_t, uint64_t, int64_t);
int cublasLtMatrixLayoutSetAttribute(void *, int, const void *, size_t);
int cublasLtMatmulPreferenceCreate(void **);
int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *,
                                   void *, void *, int,
                                   dshard::emulator::BlasHeuristic *, int *);
int cublasLtMatmul(void *, void *, const void *, const void *, void *,
                   const void *, void *, const void *, const void *, void *,
                   void *, void *, const dshard::emulator::BlasAlgo *, void *,
                   size_t, void *);
int ncclCommAbort(void *);
int ncclCommGetAsyncError(void *, int *);
int cuStreamQuery(void *);
int ncclGetUniqueId(dshard::emulator::NcclId *);
int ncclCommInitRank(void **, int, dshard::emulator::NcclId, int);
int ncclAllReduce(const void *, void *, size_t, int, int, void *, void *);
int ncclAllGather(const void *, void *, size_t, int, void *, void *);
int ncclReduceScatter(const void *, void *, size_t, int, int, void *, void *);
int ncclBroadcast(const void *, void *, size_t, int, int, void *, void *);
int ncclSend(const void *, size_t, int, int, void *, void *);
int ncclRecv(void *, size_t, int, int, void *, void *);
int ncclGroupStart();
int ncclGroupEnd();
void dshardEmulatorDeclareBuffers(const uint64_t *, const uint64_t *,
                                  const uint8_t *, unsigned);
const char *dshardEmulatorFault();
void dshardEmulatorReset();
}

namespace dshard::emulator {

/// A fresh emulator; device 0 is current on the test's thread.
class EmulatorTest : public ::testing::Test {
protected:
  void SetUp() override {
    setenv("DSHARD_EMULATOR_TIMEOUT", "1", 1);
    dshardEmulatorReset();
    use(0);
  }
  void TearDown() override { dshardEmulatorReset(); }

  static void use(int device) {
    void *context = nullptr;
    ASSERT_EQ(cuDevicePrimaryCtxRetain(&context, device), 0);
    ASSERT_EQ(cuCtxSetCurrent(context), 0);
  }
  template <typename T> static uint64_t upload(const std::vector<T> &values) {
    uint64_t address = 0;
    EXPECT_EQ(cuMemAlloc_v2(&address, values.size() * sizeof(T)), 0);
    EXPECT_EQ(cuMemcpyHtoDAsync_v2(address, values.data(),
                                   values.size() * sizeof(T), nullptr),
              0);
    EXPECT_EQ(cuCtxSynchronize(), 0);
    return address;
  }
  template <typename T>
  static std::vector<T> download(uint64_t address, size_t count) {
    std::vector<T> values(count);
    EXPECT_EQ(cuMemcpyDtoHAsync_v2(values.data(), address, count * sizeof(T),
                                   nullptr),
              0)
        << fault();
    return values;
  }
  static uint64_t allocate(size_t bytes) {
    uint64_t address = 0;
    EXPECT_EQ(cuMemAlloc_v2(&address, bytes), 0);
    EXPECT_EQ(cuMemsetD8Async(address, 0, bytes, nullptr), 0);
    EXPECT_EQ(cuCtxSynchronize(), 0);
    return address;
  }
  static std::string fault() {
    const char *text = dshardEmulatorFault();
    return text ? text : "";
  }
  static std::string samples() {
    std::ifstream file(std::string(DSHARD_EMULATOR_KERNELS) + "/sample.ptx");
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  static void *kernel(const std::string &ptx, const char *name) {
    char log[512] = {};
    int options[] = {5, 6};
    void *values[] = {log, reinterpret_cast<void *>(sizeof(log))};
    void *module = nullptr, *function = nullptr;
    EXPECT_EQ(cuModuleLoadDataEx(&module, ptx.c_str(), 2, options, values), 0)
        << log;
    EXPECT_EQ(module ? cuModuleGetFunction(&function, module, name) : 1, 0);
    return function;
  }
  template <typename... T>
  static int launch(void *function, unsigned grid, unsigned block, void *stream,
                    T... arguments) {
    void *pointers[] = {&arguments...};
    return cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, stream,
                          pointers, nullptr);
  }
  /// Replaces the n-th occurrence; the text must be there.
  static std::string replaced(std::string text, const std::string &from,
                              const std::string &to, unsigned n = 0) {
    size_t at = text.find(from);
    while (n-- && at != std::string::npos)
      at = text.find(from, at + 1);
    EXPECT_NE(at, std::string::npos) << from;
    if (at != std::string::npos)
      text.replace(at, from.size(), to);
    return text;
  }
  /// A text without the n-th line of a kernel that holds `what`.
  static std::string withoutLine(std::string text, const std::string &kernel,
                                 const std::string &what, unsigned n = 0) {
    size_t at = text.find(".entry " + kernel);
    for (unsigned i = 0; i <= n; ++i)
      at = text.find(what, at + 1);
    EXPECT_NE(at, std::string::npos);
    size_t begin = text.rfind('\n', at), end = text.find('\n', at);
    text.erase(begin, end - begin);
    return text;
  }
  /// A kernel `k` with pointers a, b in %a, %b and the thread in %t, whose
  /// byte offset is in %o.
  static std::string small(const std::string &body,
                           const std::string &declarations = "") {
    return ".version 8.3\n.target sm_80\n.address_size 64\n" + declarations +
           ".visible .entry k(.param .u64 pa, .param .u64 pb)\n{\n"
           ".reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<32>;\n"
           ".reg .f32 %f<32>; .reg .b64 %d<32>; .reg .f64 %e<8>;\n"
           ".reg .b64 %a, %b, %o; .reg .b32 %t;\n"
           "ld.param.u64 %a, [pa];\nld.param.u64 %b, [pb];\n"
           "mov.u32 %t, %tid.x;\nmul.wide.u32 %o, %t, 4;\n"
           "add.s64 %a, %a, %o;\nadd.s64 %b, %b, %o;\n" +
           body + "\nret;\n}\n";
  }
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_TESTS_API_H
