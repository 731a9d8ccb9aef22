//===- SymbolsTest.cpp - The shared library has what the table says -------===//
#include <gtest/gtest.h>

#include <dlfcn.h>

TEST(Symbols, areAllInTheLibrary) {
  void *library = dlopen(DSHARD_EMULATOR_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
#define SYMBOL(name) EXPECT_NE(dlsym(library, #name), nullptr) << #name;
#include "Driver/Symbols.def"
  // And all that the runtime asks for.
#define DSHARD_CUDA_DRIVER(member, symbol, arguments) SYMBOL(symbol)
#define DSHARD_CUDA_DRIVER_OPTIONAL(member, symbol, arguments) SYMBOL(symbol)
#define DSHARD_CUDA_DRIVER_HOOK(member, symbol, arguments) SYMBOL(symbol)
#define DSHARD_CUDA_BLAS(member, symbol, result, arguments) SYMBOL(symbol)
#define DSHARD_CUDA_NCCL(member, symbol, result, arguments) SYMBOL(symbol)
#define SYMBOL(name) EXPECT_NE(dlsym(library, #name), nullptr) << #name;
#include "dshard/Runtime/Cuda/Functions.def"
  // Nothing else leaks out.
  EXPECT_EQ(dlsym(library, "_ZN6dshard8emulator6Engine3getEv"), nullptr);
}
