//===- Emitter.h - Pulling values of a fused region at indices --*- C++ -*-===//
//
// Internal to Codegen. See KernelEmitter.h for the method.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CODEGEN_EMITTER_H
#define DSHARD_LIB_CODEGEN_EMITTER_H

#include "dshard/Codegen/CompileCuda.h"
#include "dshard/Codegen/KernelEmitter.h"
#include "dshard/Codegen/LaneMath.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

#include <map>
#include <vector>

namespace mlir::dshard {

/// A place in a tensor, or `width` places that differ by `stride` along `lane`.
struct Index {
  SmallVector<Value, 4> at; ///< i64, one per dim; of lane 0 in dim `lane`
  int lane = -1;            ///< dim along which lanes vary, -1: a single place
  int64_t stride = 1;
  int64_t width = 1;

  Index() = default;
  explicit Index(ArrayRef<Value> at) : at(at.begin(), at.end()) {}
  bool single() const { return lane < 0; }
  void dropLane() { lane = -1, stride = 1, width = 1; }
};

/// Work of a piece that is worth handing to another thread, in operations.
constexpr double workPerPiece = 32768;

/// A block under construction. Values that depend only on an outer scope are
/// emitted there, before `child`.
struct Scope {
  Scope *parent = nullptr;
  unsigned depth = 0;
  Operation *child = nullptr; ///< the loop or branch being filled inside
  bool barrier = false;       ///< a branch: nothing may be hoisted out of it
  /// CUDA: all lanes of the warp are here, with the same values.
  bool uniform = false;
  std::map<std::vector<uintptr_t>, SmallVector<Value, 2>> memo;
};

/// How a kernel goes over the rows of its results.
struct RowNest {
  RankedTensorType largest;  ///< of the results
  SmallVector<int64_t> rows; ///< its dims but the last
  int64_t depth = 1;         ///< of a row
  int64_t width = 1;         ///< lanes of a vector along it
  /// A row is one place: the last dim of what is reduced is gone.
  bool places = false;
};

class Emitter {
public:
  Emitter(FusedOp fused, ModuleOp module, StringRef name, bool cuda = false);
  FailureOr<KernelInfo> emit();
  FailureOr<CudaKernelInfo> emitCuda();

private:
  /// Refuses what kernels cannot hold and finds whether the region is `flat`.
  LogicalResult analyze();
  void materializeConstants();

  // CudaKernels.cpp: the same expressions under block and thread indices.
  LogicalResult beginCuda();
  LogicalResult launch(int64_t threads, int64_t block, CudaKernelInfo &info);
  LogicalResult emitCudaElements(CudaKernelInfo &info);
  LogicalResult emitCudaRows(CudaKernelInfo &info);
  LogicalResult emitCudaScatter(ScatterAddOp op, CudaKernelInfo &info);
  /// CudaAttention.cpp: a warp per query row, online softmax over tiles of 32
  /// keys.
  LogicalResult emitCudaAttention(AttentionOp op, CudaKernelInfo &info);
  /// What a bias adds to the score of a row (batch, head, query) and a key.
  Value evalBias(Value bias, ArrayRef<Value> row, Value key);
  /// CudaAttentionGrad.cpp: a warp per row of dq and per row of dk and dv.
  LogicalResult emitCudaAttentionGrad(AttentionGradOp op, CudaKernelInfo &info);
  /// A result of the region: result number `result` of an op, and the
  /// transposes and reshapes between them, the first first.
  struct Moved {
    unsigned output = 0, result = 0;
    SmallVector<Operation *> moves;
  };
  FailureOr<SmallVector<Moved>> movedResults(Operation *op);
  void storeMoved(const Moved &moved, Index index, Value value);
  /// The columns of a row of `depth` that this lane of the warp has, in pieces
  /// of `width`; `valid` is null where all lanes have theirs, else column 0
  /// stands in.
  struct LaneColumns {
    int64_t width = 1;
    SmallVector<Value> at, valid;
    Index index(ArrayRef<Value> row, size_t piece) const;
  };
  LaneColumns shareColumns(int64_t depth, int64_t width,
                           ArrayRef<Moved> results, unsigned result);
  /// The inner product of two rows of the last dim, by one thread.
  Value dot(Value x, ArrayRef<Value> xRow, Value y, ArrayRef<Value> yRow);
  /// The keys [first, end) that a query at `position` may attend.
  std::pair<Value, Value> keysOf(Value position, bool causal, int64_t window,
                                 int64_t keys);
  /// Does something in the region fold the last dim?
  bool foldsRows();
  /// Runs `body` where `condition` holds.
  void guard(Value condition, function_ref<void()> body);
  Value intrinsic(StringRef name, Type type, ValueRange operands);
  /// The value of lane `lane ^ distance`, or of lane `from`; all 32 lanes take
  /// part.
  Value shuffle(Value value, Value lane, bool butterfly);
  Value reduceWarp(Value value, function_ref<Value(Value, Value)> combine);
  /// Over the threads that share a row: a warp, or the block.
  Value reduceTeam(Value value, function_ref<Value(Value, Value)> combine);
  void syncTeam();
  /// A number that divides an index for certain.
  int64_t divisorOf(Value index);
  /// What a vector at `offset` elements is aligned to, in bytes.
  unsigned alignmentOf(Value offset, unsigned elementBytes, int64_t width);

  // EmitLoops.cpp: the function and its loops.
  LogicalResult begin();
  LogicalResult emitFlat(KernelInfo &info);
  /// EmitColumns.cpp: kernels whose threads share columns.
  bool columns();
  LogicalResult emitColumns(KernelInfo &info);
  LogicalResult emitRows(KernelInfo &info);
  FailureOr<RowNest> rowsOf();
  using Stores = SmallVector<std::tuple<unsigned, Index, Value>>;
  /// Values of the results that have whole rows, or of the others, at
  /// `lanes` columns of a row.
  Stores valuesOfRow(const RowNest &nest, ArrayRef<Value> row, Value column,
                     int64_t lanes, bool whole);
  LogicalResult emitScatter(ScatterAddOp op, KernelInfo &info);
  /// Loops over [low, split) by `width` and [split, high) by one.
  void overElements(Value low, Value split, Value high, int64_t width,
                    function_ref<void(Value at, int64_t lanes)> body);
  /// The largest low + n * width that is at most high.
  Value splitOf(Value low, Value high, int64_t width);
  Value materializeConstant(ConstantOp op);
  void store(unsigned output, const Index &index, Value value);
  /// The widest vector along `lane` that every mapping below `value` keeps
  /// contiguous, at most `limit`.
  int64_t laneWidth(Value value, int lane, int64_t stride, int64_t limit);
  int64_t widthLimit();
  double costOfElement();

  /// A loop [low, high) by `step`, carrying values. `body` yields the next.
  SmallVector<Value>
  loop(Value low, Value high, int64_t step, ValueRange carried,
       function_ref<SmallVector<Value>(Value, ValueRange)> body);
  /// A branch on an i1; both sides give one value of the same type.
  Value branch(Value condition, Type type, function_ref<Value()> thenBody,
               function_ref<Value()> elseBody);

  // EmitOps.cpp: values of ops.
  /// The value of `value` at `index`, in its compute type: one scalar, or
  /// `index.width` lanes (a scalar too where all lanes agree). Null after an
  /// error.
  Value eval(Value value, const Index &index);
  Value compute(Operation *op, const Index &index);
  Value load(Value base, Value tensor, const Index &index);
  Value pointwise(Operation *op, ArrayRef<Value> args);
  Value evalPointwise(Operation *op, const Index &index);
  Value evalReshape(ReshapeOp op, const Index &index);
  /// Where the element at `index` of a tensor of shape `to` lies in the same
  /// elements as shape `from`.
  Index reshapeIndex(ArrayRef<int64_t> from, ArrayRef<int64_t> to,
                     const Index &index);
  Value evalConcat(ConcatOp op, const Index &index);
  Value evalPad(PadOp op, const Index &index);
  Value evalGather(GatherOp op, const Index &index);
  Value evalGatherNd(GatherNdOp op, const Index &index);
  /// Where the index at `place` points in a dim of `size`: clamped, and whether
  /// it was inside; of `op`, a look-up.
  std::pair<Value, Value> indexInside(Operation *op, const Index &place,
                                      Value indices, Value offset,
                                      int64_t size);
  Value evalIota(IotaOp op, const Index &index);
  Value evalRotary(RotaryOp op, const Index &index);
  Value evalReduce(ReduceOp op, const Index &index);
  Value evalMatMul(MatMulOp op, const Index &index);
  Value evalRmsNorm(RmsNormOp op, const Index &index);
  Value evalLayerNorm(LayerNormOp op, const Index &index);
  Value evalSoftmax(SoftmaxOp op, const Index &index);

  /// Folds `term(index of input)` over the listed dims of `shape`, all other
  /// dims as in `index`. Vectorises along the last dim where it is among them.
  Value fold(ArrayRef<int64_t> shape, ArrayRef<int64_t> dims, Index index,
             Value laneSource, Value identity,
             function_ref<Value(const Index &)> term,
             function_ref<Value(Value, Value)> combine);
  /// Emits once per scope: `make` gives values that depend on `index` alone.
  SmallVector<Value, 2> once(Operation *op, const Index &index, uintptr_t tag,
                             function_ref<SmallVector<Value, 2>()> make);

  Index broadcastTo(Value operand, ArrayRef<int64_t> result,
                    const Index &index);
  SmallVector<int64_t> shapeOf(Value value) const;
  Type elementOf(Value value) const {
    return cast<RankedTensorType>(value.getType()).getElementType();
  }

  // Index arithmetic, folded and shared.
  Value constantIndex(int64_t value);
  Value addIndex(Value x, Value y);
  Value mulIndex(Value x, int64_t y);
  Value divIndex(Value x, int64_t y);
  Value remIndex(Value x, int64_t y);
  Value binaryIndex(int kind, Value x, Value y,
                    function_ref<Value(Value, Value)> make);
  Value linearize(ArrayRef<Value> at, ArrayRef<int64_t> shape);
  SmallVector<Value, 4> delinearize(Value linear, ArrayRef<int64_t> shape);

  Scope *scopeOf(Value value) const;
  Scope *deepest(Scope *a, Scope *b) const;
  Scope *emissionScope(ArrayRef<Value> inputs) const;
  /// Runs `make` with the insertion point in `scope`.
  void inScope(Scope *scope, function_ref<void()> make);
  void own(Value value) { scopes[value] = current; }

  FusedOp fused;
  ModuleOp module;
  std::string name;
  OpBuilder b;
  Location loc;
  LaneMath m;
  LLVM::LLVMFuncOp function;
  DenseMap<Value, Value> pointers; ///< region argument or constant -> pointer
  SmallVector<Value> outputs;      ///< pointers
  Value begin_, end_;
  Scope root;
  Scope *current = &root;
  DenseMap<Value, Scope *> scopes;
  DenseMap<int64_t, Value> constants;
  bool flat = false;
  bool failed = false;
  bool cuda = false;
  // CUDA. Threads that share a row are a team: a warp, or a whole block.
  Value thread, lane, warpInBlock, member; ///< i64; `member` of the team
  int64_t team = 32;
  DenseMap<Value, int64_t> divisors;
};

} // namespace mlir::dshard

#endif // DSHARD_LIB_CODEGEN_EMITTER_H
