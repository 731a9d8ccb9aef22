//===- Blas.cpp - MATMUL by cuBLASLt --------------------------------------===//

#include "Blas.h"

#include <algorithm>

using namespace dshard;
using namespace dshard::cuda;
using plan::Activation;
using plan::DataType;

/// What cuBLASLt needs for all products of one kind.
struct Blas::Product {
  explicit Product(const BlasLibrary &library) : library(library) {}
  ~Product() {
    if (description)
      (void)library.descriptionDestroy(description);
    for (MatrixLayout layout : {a, b, c, d})
      if (layout)
        (void)library.layoutDestroy(layout);
  }

  const BlasLibrary &library;
  MatmulDescription description = nullptr;
  MatrixLayout a = nullptr, b = nullptr, c = nullptr, d = nullptr;
  MatmulHeuristic chosen = {};
};

Blas::Blas(const BlasLibrary &library) : library(library) {}

Result<std::unique_ptr<Blas>> Blas::create(const BlasLibrary &library) {
  std::unique_ptr<Blas> blas(new Blas(library));
  if (Status status =
          library.check(library.create(&blas->handle), "cublasLtCreate");
      !status)
    return status;
  return blas;
}

Blas::~Blas() {
  products.clear();
  if (handle)
    (void)library.destroy(handle);
}

/// What cuBLASLt may rely on. A view of a buffer begins anywhere.
static uint32_t alignmentOf(const void *memory) {
  uint32_t alignment = 256;
  while (reinterpret_cast<uintptr_t>(memory) % alignment)
    alignment /= 2;
  return alignment;
}

/// C: what is added to the product.
static const void *addendOf(const MatmulArguments &g) {
  return g.residual ? g.residual : g.out;
}

Blas::Key Blas::keyOf(const MatmulArguments &g) {
  return {g.batch,
          g.m,
          g.n,
          g.k,
          g.lda,
          g.ldb,
          g.ldc,
          g.ldr,
          g.strideLhs,
          g.strideRhs,
          g.strideOut,
          g.strideResidual,
          g.transposeLhs,
          g.transposeRhs,
          static_cast<int64_t>(g.activation),
          static_cast<int64_t>(g.lhsType),
          static_cast<int64_t>(g.rhsType),
          static_cast<int64_t>(g.biasType),
          static_cast<int64_t>(g.residualType),
          static_cast<int64_t>(g.outType),
          g.bias != nullptr,
          g.residual != nullptr,
          alignmentOf(g.rhs),
          alignmentOf(g.lhs),
          alignmentOf(addendOf(g)),
          alignmentOf(g.out)};
}

static bool blasType(DataType type, int &result) {
  switch (type) {
  case DataType::f32:
    result = blasF32;
    return true;
  case DataType::f16:
    result = blasF16;
    return true;
  case DataType::bf16:
    result = blasBf16;
    return true;
  default:
    return false;
  }
}

static Status checkKind(const MatmulArguments &g) {
  int type;
  if (g.packed)
    return Status::error("a packed operand is for CPUs, not for cuBLASLt");
  if (!blasType(g.lhsType, type) || g.rhsType != g.lhsType ||
      (g.outType != g.lhsType && g.outType != DataType::f32) ||
      g.biasType != (g.bias ? g.outType : g.biasType) ||
      (g.residual && g.residualType != g.outType))
    return Status::error(
        std::string("a product of ") + plan::toString(g.lhsType) + " and " +
        plan::toString(g.rhsType) + " to " + plan::toString(g.outType) +
        " is not supported on GPUs");
  if (g.activation != Activation::none && g.activation != Activation::relu &&
      g.activation != Activation::geluTanh)
    return Status::error(std::string("cuBLASLt has no epilogue '") +
                         plan::toString(g.activation) +
                         "'; it belongs into a kernel");
  if (g.activation != Activation::none && g.residual)
    return Status::error("cuBLASLt adds the residual before the activation; "
                         "one of them belongs into a kernel");
  return Status();
}

Status Blas::make(const MatmulArguments &g, uint64_t workspace, Product &p) {
  if (Status status = checkKind(g); !status)
    return status;
  int type = 0, outType = 0;
  (void)blasType(g.lhsType, type);
  (void)blasType(g.outType, outType);
  if (Status s = library.check(
          library.descriptionCreate(&p.description, computeF32, blasF32),
          "cublasLtMatmulDescCreate");
      !s)
    return s;
  Status status;
  auto set = [&](int attribute, const void *value, size_t bytes) {
    if (status)
      status = library.check(
          library.descriptionSet(p.description, attribute, value, bytes),
          "cublasLtMatmulDescSetAttribute");
  };
  int32_t transposeA = g.transposeRhs, transposeB = g.transposeLhs;
  set(descriptionTransposeA, &transposeA, sizeof(transposeA));
  set(descriptionTransposeB, &transposeB, sizeof(transposeB));
  int32_t epilogue = g.activation == Activation::relu       ? epilogueRelu
                     : g.activation == Activation::geluTanh ? epilogueGelu
                                                            : epilogueNone;
  if (g.bias)
    epilogue =
        epilogue == epilogueNone ? epilogueBias : epilogue + epilogueBias;
  set(descriptionEpilogue, &epilogue, sizeof(epilogue));
  if (g.bias) {
    set(descriptionBiasPointer, &g.bias, sizeof(g.bias));
    int32_t biasType = outType;
    set(descriptionBiasType, &biasType, sizeof(biasType));
  }
  auto layout = [&](MatrixLayout &target, int elementType, int64_t rows,
                    int64_t columns, int64_t leading, int64_t stride) {
    if (!status)
      return;
    status =
        library.check(library.layoutCreate(&target, elementType, rows, columns,
                                           std::max(leading, rows)),
                      "cublasLtMatrixLayoutCreate");
    int32_t batch = static_cast<int32_t>(g.batch);
    if (status && g.batch > 1)
      status = library.check(
          library.layoutSet(target, layoutBatchCount, &batch, sizeof(batch)),
          "cublasLtMatrixLayoutSetAttribute");
    if (status && g.batch > 1)
      status = library.check(
          library.layoutSet(target, layoutBatchStride, &stride, sizeof(stride)),
          "cublasLtMatrixLayoutSetAttribute");
  };
  // Column-major: the row-major [rows, columns] is [columns, rows].
  if (g.transposeRhs)
    layout(p.a, type, g.k, g.n, g.ldb, g.strideRhs);
  else
    layout(p.a, type, g.n, g.k, g.ldb, g.strideRhs);
  if (g.transposeLhs)
    layout(p.b, type, g.m, g.k, g.lda, g.strideLhs);
  else
    layout(p.b, type, g.k, g.m, g.lda, g.strideLhs);
  layout(p.d, outType, g.n, g.m, g.ldc, g.strideOut);
  layout(p.c, outType, g.n, g.m, g.residual ? g.ldr : g.ldc,
         g.residual ? g.strideResidual : g.strideOut);
  if (!status)
    return status;

  MatmulPreference preference = nullptr;
  status = library.check(library.preferenceCreate(&preference),
                         "cublasLtMatmulPreferenceCreate");
  if (!status)
    return status;
  status = library.check(library.preferenceSet(preference, preferenceWorkspace,
                                               &workspace, sizeof(workspace)),
                         "cublasLtMatmulPreferenceSetAttribute");
  const void *operands[] = {g.rhs, g.lhs, addendOf(g), g.out};
  for (int i = 0; i < 4 && status; ++i) {
    uint32_t alignment = alignmentOf(operands[i]);
    status =
        library.check(library.preferenceSet(preference, preferenceAlignment[i],
                                            &alignment, sizeof(alignment)),
                      "cublasLtMatmulPreferenceSetAttribute");
  }
  int found = 0;
  if (status)
    status = library.check(library.getHeuristic(handle, p.description, p.a, p.b,
                                                p.c, p.d, preference, 1,
                                                &p.chosen, &found),
                           "cublasLtMatmulAlgoGetHeuristic");
  (void)library.preferenceDestroy(preference);
  if (status && (found < 1 || p.chosen.state != 0))
    status = Status::error("cublasLtMatmulAlgoGetHeuristic: nothing found");
  return status;
}

static std::string describe(const MatmulArguments &g) {
  return "product of [" + std::to_string(g.m) + ", " + std::to_string(g.k) +
         "] and [" + std::to_string(g.k) + ", " + std::to_string(g.n) +
         "] in " + plan::toString(g.lhsType);
}

Status Blas::prepare(const MatmulArguments &g, uint64_t workspace) {
  std::unique_ptr<Product> &entry = products[keyOf(g)];
  if (entry)
    return Status();
  auto product = std::make_unique<Product>(library);
  if (Status status = make(g, workspace, *product); !status)
    return Status::error(describe(g) + ": " + status.message());
  entry = std::move(product);
  return Status();
}

Status Blas::matmul(const MatmulArguments &g, Stream stream, void *workspace,
                    uint64_t workspaceBytes) {
  if (Status status = prepare(g, workspaceBytes); !status)
    return status;
  Product &p = *products[keyOf(g)];
  if (g.bias)
    if (Status status = library.check(
            library.descriptionSet(p.description, descriptionBiasPointer,
                                   &g.bias, sizeof(g.bias)),
            "cublasLtMatmulDescSetAttribute");
        !status)
      return status;
  float alpha = 1, beta = g.residual ? 1 : 0;
  Status status = library.check(
      library.matmul(handle, p.description, &alpha, g.rhs, p.a, g.lhs, p.b,
                     &beta, addendOf(g), p.c, g.out, p.d, &p.chosen.algorithm,
                     workspace, workspaceBytes, stream),
      "cublasLtMatmul");
  return status ? status : Status::error(describe(g) + ": " + status.message());
}
