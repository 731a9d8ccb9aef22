//===- BlasLt.cpp - cublasLtMatmul as plain loops -------------------------===//
//
// D = epilogue(alpha op(A) op(B) + beta C + bias), column- or row-major, with
// strided batches; f32, bf16 and f16, sums in float (double for f64), k
// ascending.
//
//===----------------------------------------------------------------------===//
#include "Driver/Calls.h"
#include "Ptx/Types.h"

#include <cstring>

using namespace dshard;
using namespace dshard::emulator;

namespace {

struct MatmulDesc {
  int compute = 68, scale = 0; // CUBLAS_COMPUTE_32F, CUDA_R_32F
  int pointerMode = 0, transA = 0, transB = 0, epilogue = 1;
  uint64_t bias = 0;
  int biasType = -1;
  int64_t biasStride = 0;
};
struct Layout {
  int type = 0, order = 0;
  uint64_t rows = 0, columns = 0;
  int64_t ld = 0, stride = 0;
  int batch = 1;
  uint64_t elementBytes() const {
    return type == blasF64 ? 8 : type == blasF32 ? 4 : 2;
  }
  /// Index of (row, column) of batch b.
  int64_t at(uint64_t row, uint64_t column, int b) const {
    return b * stride + (order ? static_cast<int64_t>(row) * ld +
                                     static_cast<int64_t>(column)
                               : static_cast<int64_t>(column) * ld +
                                     static_cast<int64_t>(row));
  }
  /// The memory that the matrix covers, batch by batch.
  void cover(uint64_t base, bool write, std::vector<Access> &out) const {
    if (!rows || !columns)
      return;
    uint64_t lines = order ? rows : columns, length = order ? columns : rows;
    for (int b = 0; b < batch; ++b) {
      uint64_t begin =
          base + static_cast<uint64_t>(b * stride) * elementBytes();
      if (static_cast<uint64_t>(ld) == length) {
        out.push_back({begin, begin + lines * length * elementBytes(), write});
        continue;
      }
      for (uint64_t i = 0; i < lines; ++i) {
        uint64_t line = begin + i * static_cast<uint64_t>(ld) * elementBytes();
        out.push_back({line, line + length * elementBytes(), write});
      }
    }
  }
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t alignment[4] = {256, 256, 256, 256}; // of A, B, C, D
};

float get(int type, uint64_t base, int64_t index) {
  switch (type) {
  case blasF16:
    return floatFromHalf(reinterpret_cast<const uint16_t *>(base)[index]);
  case blasBF16:
    return floatFromBFloat16(reinterpret_cast<const uint16_t *>(base)[index]);
  case blasF64:
    return static_cast<float>(reinterpret_cast<const double *>(base)[index]);
  default:
    return reinterpret_cast<const float *>(base)[index];
  }
}
void put(int type, uint64_t base, int64_t index, float value) {
  switch (type) {
  case blasF16:
    reinterpret_cast<uint16_t *>(base)[index] = halfFromFloat(value);
    return;
  case blasBF16:
    reinterpret_cast<uint16_t *>(base)[index] = bfloat16FromFloat(value);
    return;
  case blasF64:
    reinterpret_cast<double *>(base)[index] = value;
    return;
  default:
    reinterpret_cast<float *>(base)[index] = value;
  }
}

struct Product {
  MatmulDesc desc;
  Layout a, b, c, d;
  uint64_t A, B, C, D;
  float alpha, beta;
  uint64_t m, n, k;

  float finish(float value, uint64_t row, int batch) const {
    if (desc.epilogue & 4)
      value += get(desc.biasType < 0 ? d.type : desc.biasType, desc.bias,
                   batch * desc.biasStride + static_cast<int64_t>(row));
    if (desc.epilogue & 2)
      value = value > 0 ? value : 0;
    if (desc.epilogue & 32) // the tanh form, as cuBLASLt's
      value = 0.5f * value *
              (1.0f + std::tanh(0.7978845608f *
                                (value + 0.044715f * value * value * value)));
    return value;
  }
  void run() const {
    // op(A) row-wise and op(B) column-wise in float, once per batch.
    std::vector<float> left(m * k), right(n * k);
    for (int batch = 0; batch < d.batch; ++batch) {
      int ba = a.batch > 1 ? batch : 0, bb = b.batch > 1 ? batch : 0;
      for (uint64_t i = 0; i < m; ++i)
        for (uint64_t l = 0; l < k; ++l)
          left[i * k + l] =
              get(a.type, A, desc.transA ? a.at(l, i, ba) : a.at(i, l, ba));
      for (uint64_t j = 0; j < n; ++j)
        for (uint64_t l = 0; l < k; ++l)
          right[j * k + l] =
              get(b.type, B, desc.transB ? b.at(j, l, bb) : b.at(l, j, bb));
      for (uint64_t j = 0; j < n; ++j)
        for (uint64_t i = 0; i < m; ++i) {
          const float *x = &left[i * k], *y = &right[j * k];
          // Eight sums: the order is fixed, and the compiler may vectorise.
          float sums[8] = {};
          uint64_t l = 0;
          for (; l + 8 <= k; l += 8)
            for (unsigned s = 0; s < 8; ++s)
              sums[s] += x[l + s] * y[l + s];
          for (; l < k; ++l)
            sums[l % 8] += x[l] * y[l];
          float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
                      ((sums[4] + sums[5]) + (sums[6] + sums[7]));
          float value = alpha * sum;
          if (beta != 0)
            value += beta * get(c.type, C, c.at(i, j, c.batch > 1 ? batch : 0));
          put(d.type, D, d.at(i, j, batch), finish(value, i, batch));
        }
    }
  }
};

template <typename T> bool take(T &field, const void *value, size_t bytes) {
  if (bytes != sizeof(T))
    return false;
  std::memcpy(&field, value, bytes);
  return true;
}

bool known(int type) {
  return type == blasF32 || type == blasF64 || type == blasF16 ||
         type == blasBF16;
}

/// "" or what does not fit.
std::string check(const Product &p) {
  const MatmulDesc &desc = p.desc;
  for (const Layout *layout : {&p.a, &p.b, &p.c, &p.d}) {
    if (!known(layout->type))
      return "data type " + std::to_string(layout->type) + " is not known";
    uint64_t least = layout->order ? layout->columns : layout->rows;
    if (static_cast<uint64_t>(layout->ld) < least)
      return "a leading dimension of " + std::to_string(layout->ld) +
             " for lines of " + std::to_string(least);
    if (layout->order != 0 && layout->order != 1)
      return "order " + std::to_string(layout->order) + " is not known";
  }
  if (desc.epilogue & ~(1 | 2 | 4 | 32) || (desc.epilogue & 34) == 34)
    return "epilogue " + std::to_string(desc.epilogue) + " is not known";
  if ((desc.epilogue & 4) && !desc.bias)
    return "an epilogue with bias, but no bias pointer";
  if (desc.transA > 1 || desc.transB > 1 || desc.pointerMode != 0)
    return "conjugates and device scalars are not known";
  auto text = [](uint64_t rows, uint64_t columns) {
    return std::to_string(rows) + "x" + std::to_string(columns);
  };
  uint64_t ka = desc.transA ? p.a.rows : p.a.columns;
  uint64_t kb = desc.transB ? p.b.columns : p.b.rows;
  uint64_t m = desc.transA ? p.a.columns : p.a.rows;
  uint64_t n = desc.transB ? p.b.rows : p.b.columns;
  if (ka != kb || m != p.d.rows || n != p.d.columns || p.c.rows != m ||
      p.c.columns != n)
    return "op(A) " + text(m, ka) + " times op(B) " + text(kb, n) +
           " is not D " + text(p.d.rows, p.d.columns);
  for (const Layout *layout : {&p.a, &p.b, &p.c})
    if (layout->batch != p.d.batch && layout->batch != 1)
      return "batch counts " + std::to_string(layout->batch) + " and " +
             std::to_string(p.d.batch);
  return "";
}

} // namespace

EMULATED int cublasLtCreate(void **handle) {
  Call call;
  if (call.injected)
    return blasNotInitialized;
  static int something;
  *handle = &something;
  return blasSuccess;
}
EMULATED int cublasLtDestroy(void *) { return blasSuccess; }
EMULATED size_t cublasLtGetVersion() {
  Call call;
  return static_cast<size_t>(call.engine.blasVersion);
}
EMULATED size_t cublasLtGetCudartVersion() { return 13000; }
EMULATED const char *cublasLtGetStatusName(int status) {
  switch (status) {
  case blasSuccess:
    return "CUBLAS_STATUS_SUCCESS";
  case blasNotInitialized:
    return "CUBLAS_STATUS_NOT_INITIALIZED";
  case blasInvalidValue:
    return "CUBLAS_STATUS_INVALID_VALUE";
  case blasExecutionFailed:
    return "CUBLAS_STATUS_EXECUTION_FAILED";
  default:
    return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
}
EMULATED const char *cublasLtGetStatusString(int status) {
  const char *fault = nullptr;
  {
    Call call;
    if (call.engine.failed())
      fault = call.engine.keep(call.engine.fault());
  }
  return status && fault ? fault : cublasLtGetStatusName(status);
}

EMULATED int cublasLtMatmulDescCreate(void **desc, int compute, int scale) {
  MAY_FAIL(blasNotInitialized)
  MatmulDesc *made = new MatmulDesc;
  made->compute = compute;
  made->scale = scale;
  *desc = made;
  return blasSuccess;
}
EMULATED int cublasLtMatmulDescDestroy(void *desc) {
  delete static_cast<MatmulDesc *>(desc);
  return blasSuccess;
}
EMULATED int cublasLtMatmulDescSetAttribute(void *handle, int attribute,
                                            const void *value, size_t bytes) {
  MAY_FAIL(blasNotInitialized)
  MatmulDesc &desc = *static_cast<MatmulDesc *>(handle);
  bool ok = false;
  switch (attribute) {
  case 0:
    ok = take(desc.compute, value, bytes);
    break;
  case 1:
    ok = take(desc.scale, value, bytes);
    break;
  case 2:
    ok = take(desc.pointerMode, value, bytes);
    break;
  case 3:
    ok = take(desc.transA, value, bytes);
    break;
  case 4:
    ok = take(desc.transB, value, bytes);
    break;
  case 7:
    ok = take(desc.epilogue, value, bytes);
    break;
  case 8:
    ok = take(desc.bias, value, bytes);
    break;
  case 10:
    ok = take(desc.biasStride, value, bytes);
    break;
  case 26:
    ok = take(desc.biasType, value, bytes);
    break;
  case 15:
  case 25:
    ok = true;
    break; // SM count, fast accumulation: hints
  default:
    return blasNotSupported;
  }
  return ok ? blasSuccess : blasInvalidValue;
}

EMULATED int cublasLtMatrixLayoutCreate(void **handle, int type, uint64_t rows,
                                        uint64_t columns, int64_t ld) {
  MAY_FAIL(blasNotInitialized)
  Layout *layout = new Layout;
  layout->type = type;
  layout->rows = rows;
  layout->columns = columns;
  layout->ld = ld;
  *handle = layout;
  return blasSuccess;
}
EMULATED int cublasLtMatrixLayoutDestroy(void *handle) {
  delete static_cast<Layout *>(handle);
  return blasSuccess;
}
EMULATED int cublasLtMatrixLayoutSetAttribute(void *handle, int attribute,
                                              const void *value, size_t bytes) {
  MAY_FAIL(blasNotInitialized)
  Layout &layout = *static_cast<Layout *>(handle);
  bool ok = false;
  switch (attribute) {
  case 0:
    ok = take(layout.type, value, bytes);
    break;
  case 1:
    ok = take(layout.order, value, bytes);
    break;
  case 2:
    ok = take(layout.rows, value, bytes);
    break;
  case 3:
    ok = take(layout.columns, value, bytes);
    break;
  case 4:
    ok = take(layout.ld, value, bytes);
    break;
  case 5:
    ok = take(layout.batch, value, bytes);
    break;
  case 6:
    ok = take(layout.stride, value, bytes);
    break;
  default:
    return blasNotSupported;
  }
  return ok ? blasSuccess : blasInvalidValue;
}

EMULATED int cublasLtMatmulPreferenceCreate(void **handle) {
  MAY_FAIL(blasNotInitialized)
  *handle = new Preference;
  return blasSuccess;
}
EMULATED int cublasLtMatmulPreferenceDestroy(void *handle) {
  delete static_cast<Preference *>(handle);
  return blasSuccess;
}
EMULATED int cublasLtMatmulPreferenceSetAttribute(void *handle, int attribute,
                                                  const void *value,
                                                  size_t bytes) {
  MAY_FAIL(blasNotInitialized)
  Preference &preference = *static_cast<Preference *>(handle);
  if (attribute == 1)
    return take(preference.workspace, value, bytes) ? blasSuccess
                                                    : blasInvalidValue;
  if (attribute >= 5 && attribute <= 8)
    return take(preference.alignment[attribute - 5], value, bytes)
               ? blasSuccess
               : blasInvalidValue;
  return blasSuccess; // masks: hints
}

/// One algorithm, which wants a workspace if it may have one: so that the
/// caller's workspace is checked for races, too. It relies on the operands'
/// alignment, as the fast ones do.
EMULATED int cublasLtMatmulAlgoGetHeuristic(void *, void *desc, void *a,
                                            void *b, void *c, void *d,
                                            void *preference, int wanted,
                                            BlasHeuristic *results,
                                            int *found) {
  MAY_FAIL(blasNotSupported)
  *found = 0;
  if (wanted < 1)
    return blasInvalidValue;
  Product product{*static_cast<MatmulDesc *>(desc),
                  *static_cast<Layout *>(a),
                  *static_cast<Layout *>(b),
                  *static_cast<Layout *>(c),
                  *static_cast<Layout *>(d),
                  0,
                  0,
                  0,
                  0,
                  1,
                  0,
                  0,
                  0,
                  0};
  if (!product.desc.bias)
    product.desc.bias = 1; // may be set later
  if (!check(product).empty())
    return blasNotSupported;
  uint64_t limit =
      preference ? static_cast<Preference *>(preference)->workspace : 0;
  std::memset(&results[0], 0, sizeof(results[0]));
  results[0].algo.data[0] = 0xd5;
  for (int i = 0; i < 4 && preference; ++i)
    results[0].algo.data[1 + i] =
        static_cast<Preference *>(preference)->alignment[i];
  results[0].workspaceSize = std::min<uint64_t>(limit, 4096);
  results[0].wavesCount = 1;
  *found = 1;
  return blasSuccess;
}

EMULATED int cublasLtMatmul(void *, void *desc, const void *alpha,
                            const void *a, void *layoutA, const void *b,
                            void *layoutB, const void *beta, const void *c,
                            void *layoutC, void *d, void *layoutD,
                            const BlasAlgo *algo, void *workspace,
                            size_t workspaceBytes, void *streamHandle) {
  Call call;
  if (call.engine.failed() || call.injected)
    return blasExecutionFailed;
  if (call.dropped)
    return blasSuccess;
  if (!call.device() || !call.device()->memory)
    return blasNotInitialized;
  auto address = [](const void *p) { return reinterpret_cast<uint64_t>(p); };
  auto product = std::make_shared<Product>(
      Product{*static_cast<MatmulDesc *>(desc), *static_cast<Layout *>(layoutA),
              *static_cast<Layout *>(layoutB), *static_cast<Layout *>(layoutC),
              *static_cast<Layout *>(layoutD), address(a), address(b),
              address(c), address(d), 0, 0, 0, 0, 0});
  if (product->desc.scale == blasF64) {
    double wide[2];
    std::memcpy(&wide[0], alpha, 8), std::memcpy(&wide[1], beta, 8);
    product->alpha = static_cast<float>(wide[0]);
    product->beta = static_cast<float>(wide[1]);
  } else {
    std::memcpy(&product->alpha, alpha, 4);
    std::memcpy(&product->beta, beta, 4);
  }
  auto refuse = [&](const std::string &why) {
    call.engine.fail("device " + std::to_string(call.device()->index) +
                     ": cublasLtMatmul: " + why);
    return blasInvalidValue;
  };
  std::string error = check(*product);
  if (!error.empty())
    return refuse(error);
  product->m = product->d.rows;
  product->n = product->d.columns;
  product->k = product->desc.transA ? product->a.rows : product->a.columns;
  std::vector<Access> touched;
  product->a.cover(product->A, false, touched);
  product->b.cover(product->B, false, touched);
  if (product->beta != 0)
    product->c.cover(product->C, false, touched);
  product->d.cover(product->D, true, touched);
  if (product->desc.epilogue & 4) {
    uint64_t bytes = product->m * (product->desc.biasType == blasF32 ||
                                           (product->desc.biasType < 0 &&
                                            product->d.type == blasF32)
                                       ? 4
                                       : 2);
    touched.push_back({product->desc.bias, product->desc.bias + bytes, false});
  }
  std::vector<Range> allowed = takeAllowed(*call.device());
  for (const Access &access : touched) {
    error = checkBuffer(allowed, access.begin, access.end - access.begin,
                        access.write, "cublasLtMatmul");
    if (!error.empty())
      return refuse(error.substr(error.find(": ") + 2));
    if (access.begin % 2)
      return refuse("misaligned access");
  }
  const uint64_t operands[] = {product->A, product->B, product->C, product->D};
  for (int i = 0; i < 4 && algo && algo->data[0] == 0xd5; ++i)
    if (uint64_t alignment = algo->data[1 + i];
        alignment && operands[i] % alignment && (i != 2 || product->beta != 0))
      return refuse("matrix " + std::string(1, "ABCD"[i]) +
                    " is misaligned: the algorithm wants multiples of " +
                    std::to_string(alignment) + " bytes");
  // The workspace is nobody's buffer in the plan: any allocation will do.
  if (algo && algo->data[0] == 0xd5 && workspace && workspaceBytes) {
    uint64_t bytes = std::min<uint64_t>(workspaceBytes, 4096);
    if (!call.device()->memory->contains(address(workspace), bytes))
      return refuse("the workspace is out of bounds");
    touched.push_back({address(workspace), address(workspace) + bytes, true});
  }
  auto operation = std::make_shared<Operation>();
  operation->name = "matmul " + std::to_string(product->m) + "x" +
                    std::to_string(product->n) + "x" +
                    std::to_string(product->k);
  operation->run = [product, touched](std::vector<Access> &out) {
    product->run();
    out = touched;
    return std::string();
  };
  call.engine.enqueue(*call.stream(streamHandle), operation);
  return blasSuccess;
}
