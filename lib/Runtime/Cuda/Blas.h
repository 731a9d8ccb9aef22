//===- Blas.h - MATMUL by cuBLASLt ------------------------------*- C++ -*-===//
//
// Our matrices are row-major, cuBLASLt's column-major: out = lhs rhs is
// computed as out^T = rhs^T lhs^T, whose operands are the same bytes. Bias,
// ReLU and tanh-GELU are epilogues, the residual is the matrix C with beta = 1.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_CUDA_BLAS_H
#define DSHARD_LIB_RUNTIME_CUDA_BLAS_H

#include "Driver.h"
#include "dshard/Runtime/Operations.h"

#include <array>
#include <map>
#include <memory>

namespace dshard::cuda {

/// One rank's handle. Its GPU's context is current in every call.
class Blas {
public:
  static Result<std::unique_ptr<Blas>> create(const BlasLibrary &library);
  ~Blas();

  /// Refuses what the library cannot compute; else chooses an algorithm that
  /// needs at most `workspace` bytes, for all products of this kind.
  Status prepare(const MatmulArguments &arguments, uint64_t workspace);
  Status matmul(const MatmulArguments &arguments, Stream stream,
                void *workspace, uint64_t workspaceBytes);

private:
  struct Product;
  using Key = std::array<int64_t, 26>;

  explicit Blas(const BlasLibrary &library);
  static Key keyOf(const MatmulArguments &arguments);
  Status make(const MatmulArguments &arguments, uint64_t workspace,
              Product &product);

  const BlasLibrary &library;
  BlasHandle handle = nullptr;
  std::map<Key, std::unique_ptr<Product>> products;
};

} // namespace dshard::cuda

#endif // DSHARD_LIB_RUNTIME_CUDA_BLAS_H
