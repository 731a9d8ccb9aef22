//===- CudaKernels.cpp - Kernels under block and thread indices -----------===//
//
// The expressions are those of the CPU; only what iterates differs:
//  - elements: a thread takes one vector of 128 bits of the results, or one of
//    the elements that are left over;
//  - rows (something folds the last dim): a warp, or a block if it is long,
//    takes one row; its threads go along the last dim in steps of 128 bits, and
//    folds end in shuffles, and a word per warp in shared memory;
//  - sums by index: a thread takes one column.
//
//===----------------------------------------------------------------------===//

#include "Emitter.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

#include <limits>
#include <numeric>

using namespace mlir;
using namespace mlir::dshard;

static int64_t product(ArrayRef<int64_t> dims) {
  return std::accumulate(dims.begin(), dims.end(), int64_t(1),
                         std::multiplies<int64_t>());
}

bool mlir::dshard::isCudaKernelOp(Operation *op) {
  auto attention = dyn_cast<AttentionOp>(op);
  if (attention || isa<AttentionGradOp>(op))
    return (!attention || attention.getParts() == 1) &&
           llvm::all_of(op->getOperandTypes(), [](Type type) {
             Type element = cast<RankedTensorType>(type).getElementType();
             return element.isInteger(1) || element.isInteger(64) ||
                    element.isF16() || element.isBF16() || element.isF32() ||
                    element.isF64();
           });
  return isKernelOp(op);
}

//===----------------------------------------------------------------------===//
// Threads
//===----------------------------------------------------------------------===//

LogicalResult Emitter::beginCuda() {
  MLIRContext *context = b.getContext();
  Block &body = fused.getBody().front();
  unsigned count = body.getNumArguments() + fused.getNumResults();
  auto pointer = LLVM::LLVMPointerType::get(context, /*addressSpace=*/1);
  b.setInsertionPointToEnd(module.getBody());
  function = LLVM::LLVMFuncOp::create(
      b, loc, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context),
                                  SmallVector<Type>(count, pointer)));
  function.setCConv(LLVM::CConv::PTX_Kernel);
  // Not said here: that buffers are aligned. Vectors below say it themselves,
  // and LLVM would read beyond a buffer's end where it knows.
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToEnd(entry);
  auto bytesOf = [](Value value) {
    auto type = cast<RankedTensorType>(value.getType());
    unsigned bits = type.getElementType().getIntOrFloatBitWidth();
    return type.getNumElements() * llvm::divideCeil(bits, 8);
  };
  for (BlockArgument argument : body.getArguments()) {
    unsigned i = argument.getArgNumber();
    pointers[argument] = entry->getArgument(i);
    // The plan lets a result take the place of an operand of its size.
    bool mayBeWritten = llvm::any_of(fused.getResults(), [&](Value result) {
      return bytesOf(result) == bytesOf(argument);
    });
    if (mayBeWritten)
      continue;
    function.setArgAttr(i, "llvm.noalias", b.getUnitAttr());
    function.setArgAttr(i, "llvm.readonly", b.getUnitAttr());
  }
  for (unsigned i = 0; i < fused.getNumResults(); ++i)
    outputs.push_back(entry->getArgument(body.getNumArguments() + i));
  materializeConstants();
  return success(!failed);
}

Value Emitter::intrinsic(StringRef name, Type type, ValueRange operands) {
  auto call = LLVM::CallIntrinsicOp::create(
      b, loc, type ? TypeRange(type) : TypeRange(), b.getStringAttr(name),
      operands, LLVM::FastmathFlagsAttr());
  return type ? call->getResult(0) : Value();
}

LogicalResult Emitter::launch(int64_t threads, int64_t block,
                              CudaKernelInfo &info) {
  while (block > 32 && block / 2 >= threads)
    block /= 2;
  info.block = block;
  info.grid = llvm::divideCeil(threads, block);
  if (info.grid > std::numeric_limits<int32_t>::max())
    return fused.emitError("needs ")
           << info.grid << " blocks of threads, and CUDA has 2147483647";
  function.setPassthroughAttr(b.getArrayAttr(
      b.getStrArrayAttr({"nvvm.maxntid", std::to_string(block)})));
  auto index = [&](StringRef name) {
    Value number = intrinsic(("llvm.nvvm.read.ptx.sreg." + name).str(),
                             b.getI32Type(), {});
    return arith::ExtUIOp::create(b, loc, b.getI64Type(), number).getResult();
  };
  Value inBlock = index("tid.x");
  thread = addIndex(mulIndex(index("ctaid.x"), block), inBlock);
  lane = remIndex(inBlock, 32);
  warpInBlock = divIndex(inBlock, 32);
  member = team == 32 ? lane : inBlock;
  return success();
}

void Emitter::guard(Value condition, function_ref<void()> body) {
  auto ifOp = scf::IfOp::create(b, loc, condition, /*withElseRegion=*/false);
  Operation *savedChild = current->child;
  current->child = ifOp;
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPoint(ifOp.thenBlock()->getTerminator());
    Scope scope;
    scope.parent = current;
    scope.depth = current->depth + 1;
    scope.uniform = current->uniform;
    scope.barrier = true;
    current = &scope;
    body();
    current = scope.parent;
  }
  current->child = savedChild;
}

//===----------------------------------------------------------------------===//
// Warps
//===----------------------------------------------------------------------===//

Value Emitter::shuffle(Value value, Value from, bool butterfly) {
  Type type = value.getType(), i32 = b.getI32Type(), i64 = b.getI64Type();
  StringRef base =
      butterfly ? "llvm.nvvm.shfl.sync.bfly." : "llvm.nvvm.shfl.sync.idx.";
  auto move = [&](Value word) {
    return intrinsic((base + (word.getType().isF32() ? "f32" : "i32")).str(),
                     word.getType(),
                     {m.integer(i32, -1), word, from, m.integer(i32, 31)});
  };
  unsigned bits = type.getIntOrFloatBitWidth();
  if (type.isF32() || type == i32)
    return move(value);
  if (bits < 32)
    return arith::TruncIOp::create(
        b, loc, type, move(arith::ExtUIOp::create(b, loc, i32, value)));
  Value word = value;
  if (isa<FloatType>(type))
    word = arith::BitcastOp::create(b, loc, i64, value);
  Value half = m.integer(i64, 32);
  Value low = move(arith::TruncIOp::create(b, loc, i32, word));
  Value high = move(arith::TruncIOp::create(
      b, loc, i32, arith::ShRUIOp::create(b, loc, word, half)));
  word = arith::OrIOp::create(
      b, loc, arith::ExtUIOp::create(b, loc, i64, low),
      arith::ShLIOp::create(b, loc, arith::ExtUIOp::create(b, loc, i64, high),
                            half));
  if (isa<FloatType>(type))
    word = arith::BitcastOp::create(b, loc, type, word);
  return word;
}

Value Emitter::reduceWarp(Value value,
                          function_ref<Value(Value, Value)> combine) {
  for (int64_t distance : {16, 8, 4, 2, 1})
    value = combine(value, shuffle(value, m.integer(b.getI32Type(), distance),
                                   /*butterfly=*/true));
  return value;
}

void Emitter::syncTeam() {
  Type i32 = b.getI32Type();
  if (team == 32)
    intrinsic("llvm.nvvm.bar.warp.sync", Type(), {m.integer(i32, -1)});
  else
    intrinsic("llvm.nvvm.barrier.cta.sync.aligned.all", Type(),
              {m.integer(i32, 0)});
}

Value Emitter::reduceTeam(Value value,
                          function_ref<Value(Value, Value)> combine) {
  value = reduceWarp(value, combine);
  if (team == 32)
    return value;
  // One word per warp in shared memory; then all warps do the same with them.
  Type type = value.getType(), i32 = b.getI32Type();
  bool isBool = type.isInteger(1);
  Type stored = isBool ? i32 : type;
  unsigned bytes = stored.getIntOrFloatBitWidth() / 8;
  int64_t warps = team / 32;
  std::string symbol = name + "_shared" + std::to_string(bytes) +
                       (isa<FloatType>(stored) ? "f" : "i");
  auto global = module.lookupSymbol<LLVM::GlobalOp>(symbol);
  if (!global) {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(module.getBody());
    auto array = LLVM::LLVMArrayType::get(stored, warps);
    global = LLVM::GlobalOp::create(b, loc, array, /*isConstant=*/false,
                                    LLVM::Linkage::Internal, symbol,
                                    Attribute(), /*alignment=*/16,
                                    /*addrSpace=*/3);
    b.createBlock(&global.getInitializerRegion());
    LLVM::ReturnOp::create(
        b, loc, ValueRange(LLVM::UndefOp::create(b, loc, array).getResult()));
  }
  Value base = LLVM::AddressOfOp::create(b, loc, global);
  auto at = [&](Value index) {
    return LLVM::GEPOp::create(b, loc, base.getType(), stored, base,
                               ArrayRef<LLVM::GEPArg>{index});
  };
  Value word =
      isBool ? arith::ExtUIOp::create(b, loc, i32, value).getResult() : value;
  guard(m.compareInt(arith::CmpIPredicate::eq, lane, constantIndex(0)),
        [&] { LLVM::StoreOp::create(b, loc, word, at(warpInBlock), bytes); });
  syncTeam();
  word = LLVM::LoadOp::create(b, loc, stored, at(remIndex(lane, warps)), bytes);
  syncTeam(); // the next fold writes these words again
  value =
      isBool ? arith::TruncIOp::create(b, loc, type, word).getResult() : word;
  for (int64_t distance = warps / 2; distance > 0; distance /= 2)
    value = combine(value, shuffle(value, m.integer(i32, distance),
                                   /*butterfly=*/true));
  return value;
}

//===----------------------------------------------------------------------===//
// Alignment
//===----------------------------------------------------------------------===//

int64_t Emitter::divisorOf(Value index) {
  constexpr int64_t most = 1 << 12;
  if (auto it = divisors.find(index); it != divisors.end())
    return it->second;
  auto find = [&]() -> int64_t {
    APInt number;
    if (matchPattern(index, m_ConstantInt(&number)))
      return number.isZero() ? most
             : std::abs(number.getSExtValue()) % most == 0
                 ? most
                 : std::abs(number.getSExtValue());
    if (auto argument = dyn_cast<BlockArgument>(index)) {
      auto loop =
          dyn_cast_or_null<scf::ForOp>(argument.getOwner()->getParentOp());
      return loop && loop.getInductionVar() == index
                 ? std::gcd(divisorOf(loop.getLowerBound()),
                            divisorOf(loop.getStep()))
                 : 1;
    }
    Operation *op = index.getDefiningOp();
    if (isa<arith::AddIOp, arith::SubIOp, arith::RemUIOp>(op))
      return std::gcd(divisorOf(op->getOperand(0)),
                      divisorOf(op->getOperand(1)));
    if (isa<arith::SelectOp>(op))
      return std::gcd(divisorOf(op->getOperand(1)),
                      divisorOf(op->getOperand(2)));
    if (isa<arith::MulIOp>(op)) {
      int64_t x = divisorOf(op->getOperand(0)),
              y = divisorOf(op->getOperand(1));
      return x * y % most == 0 ? most : x * y;
    }
    if (isa<arith::DivUIOp>(op) &&
        matchPattern(op->getOperand(1), m_ConstantInt(&number))) {
      int64_t x = divisorOf(op->getOperand(0)), y = number.getSExtValue();
      return y > 0 && x % y == 0 ? x / y : 1;
    }
    return 1;
  };
  int64_t divisor = find();
  divisors[index] = divisor;
  return divisor;
}

unsigned Emitter::alignmentOf(Value offset, unsigned elementBytes,
                              int64_t width) {
  if (!cuda || width == 1)
    return elementBytes;
  int64_t known = (divisorOf(offset) & -divisorOf(offset)) * elementBytes;
  return static_cast<unsigned>(std::min<int64_t>(
      {known, width * elementBytes, 16 /* the widest access */}));
}

//===----------------------------------------------------------------------===//
// Iterations
//===----------------------------------------------------------------------===//

bool Emitter::foldsRows() {
  auto lastOf = [](Value value) {
    return cast<RankedTensorType>(value.getType()).getRank() - 1;
  };
  for (Operation &op : fused.getBody().front().without_terminator()) {
    if (isa<RmsNormOp, LayerNormOp>(op))
      return true;
    if (auto softmax = dyn_cast<SoftmaxOp>(op))
      if (static_cast<int>(softmax.getDim()) == lastOf(softmax.getInput()))
        return true;
    if (auto reduce = dyn_cast<ReduceOp>(op))
      if (llvm::is_contained(reduce.getDims(), lastOf(reduce.getInput())))
        return true;
  }
  return false;
}

LogicalResult Emitter::emitCudaElements(CudaKernelInfo &info) {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  auto put = [&](const Stores &stores) {
    for (const auto &[output, index, value] : stores)
      store(output, index, value);
  };
  if (flat) {
    int64_t extent = shapeOf(yield.getValues()[0])[0];
    int64_t width = widthLimit(), vectors = extent / width,
            rest = extent - vectors * width;
    if (mlir::failed(launch(vectors + rest, 256, info)))
      return failure();
    auto body = [&](Value at, int64_t lanes) {
      Index index({at});
      if (lanes > 1)
        index.lane = 0, index.width = lanes;
      Stores stores;
      for (auto [number, value] : llvm::enumerate(yield.getValues()))
        stores.push_back({number, index, eval(value, index)});
      put(stores);
    };
    auto below = [&](int64_t bound) {
      return m.compareInt(arith::CmpIPredicate::slt, thread,
                          constantIndex(bound));
    };
    if (vectors)
      guard(below(vectors), [&] { body(mulIndex(thread, width), width); });
    if (rest && width > 1)
      guard(m.logicalAnd(below(vectors + rest),
                         m.compareInt(arith::CmpIPredicate::sge, thread,
                                      constantIndex(vectors))),
            [&] {
              body(addIndex(thread, constantIndex(vectors * (width - 1))), 1);
            });
    return success();
  }
  FailureOr<RowNest> nest = rowsOf();
  if (mlir::failed(nest))
    return failure();
  int64_t width = nest->width;
  while (nest->depth % width)
    width /= 2;
  SmallVector<int64_t> shape = nest->rows;
  shape.push_back(nest->depth / width);
  if (mlir::failed(launch(product(shape), 256, info)))
    return failure();
  guard(m.compareInt(arith::CmpIPredicate::slt, thread,
                     constantIndex(product(shape))),
        [&] {
          SmallVector<Value, 4> at = delinearize(thread, shape);
          Value column = mulIndex(at.pop_back_val(), width);
          put(valuesOfRow(*nest, at, column, width, /*whole=*/true));
        });
  return success();
}

LogicalResult Emitter::emitCudaRows(CudaKernelInfo &info) {
  FailureOr<RowNest> found = rowsOf();
  if (mlir::failed(found))
    return failure();
  const RowNest &nest = *found;
  int64_t count = product(nest.rows), folded = nest.depth;
  for (auto reduce : fused.getBody().front().getOps<ReduceOp>())
    folded =
        std::max(folded, reduce.getInput().getType().getNumElements() / count);
  // Long rows have a block each, short ones a warp.
  int64_t block = 256;
  if (folded >= 2048) {
    team = block = count < 128 && folded >= 16384 ? 1024 : 256;
  } else {
    while (block > 32 && count / (block / 32) < 128)
      block /= 2; // all multiprocessors first
  }
  if (mlir::failed(launch(count * team, block, info)))
    return failure();
  Value row = divIndex(thread, team);
  Value first =
      m.compareInt(arith::CmpIPredicate::eq, member, constantIndex(0));
  guard(m.compareInt(arith::CmpIPredicate::slt, row, constantIndex(count)),
        [&] {
          current->uniform = true;
          SmallVector<Value, 4> at =
              delinearize(count == 1 ? constantIndex(0) : row, nest.rows);
          auto single = [&](bool whole) {
            Stores stores = valuesOfRow(nest, at, Value(), 1, whole);
            if (stores.empty())
              return;
            syncTeam(); // all lanes have read what this may overwrite
            guard(first, [&] {
              for (auto &[output, index, value] : stores)
                store(output, index, value);
            });
          };
          // Single places of a row first: they read what the row may overwrite.
          single(false);
          if (nest.places)
            return single(true);
          auto columns = [&](int64_t start, int64_t end, int64_t width) {
            if (start == end)
              return;
            Value low = addIndex(mulIndex(member, width), constantIndex(start));
            loop(low, constantIndex(end), team * width, {},
                 [&](Value column, ValueRange) {
                   current->uniform = false;
                   for (auto &[output, index, value] :
                        valuesOfRow(nest, at, column, width, /*whole=*/true))
                     store(output, index, value);
                   return SmallVector<Value>();
                 });
          };
          int64_t split =
              nest.width > 1 ? nest.depth / nest.width * nest.width : 0;
          columns(0, split, nest.width);
          columns(split, nest.depth, 1);
        });
  return success();
}

LogicalResult Emitter::emitCudaScatter(ScatterAddOp op, CudaKernelInfo &info) {
  SmallVector<int64_t> result = shapeOf(op.getResult());
  bool hasColumns = static_cast<size_t>(op.getDim()) + 1 < result.size();
  int64_t columns = hasColumns ? result.back() : 1;
  if (mlir::failed(launch(columns, 32, info)))
    return failure();
  LogicalResult emitted = success();
  guard(m.compareInt(arith::CmpIPredicate::slt, thread, constantIndex(columns)),
        [&] {
          begin_ = thread;
          end_ = addIndex(thread, constantIndex(1));
          KernelInfo unused;
          emitted = emitScatter(op, unused);
        });
  return emitted;
}

FailureOr<CudaKernelInfo> Emitter::emitCuda() {
  if (mlir::failed(analyze()) || mlir::failed(beginCuda()))
    return failure();
  Block &body = fused.getBody().front();
  CudaKernelInfo info;
  info.name = name;
  info.buffers = body.getNumArguments() + fused.getNumResults();
  auto attentions = body.getOps<AttentionOp>();
  auto gradients = body.getOps<AttentionGradOp>();
  auto scatter =
      body.getTerminator()->getOperand(0).getDefiningOp<ScatterAddOp>();
  bool hasSingle = false; // results of one place in a row of another
  for (Value result : fused.getResults())
    hasSingle |=
        cast<RankedTensorType>(result.getType()).getNumElements() !=
        cast<RankedTensorType>(fused.getResult(0).getType()).getNumElements();
  LogicalResult result = success();
  if (!attentions.empty())
    result = emitCudaAttention(*attentions.begin(), info);
  else if (!gradients.empty())
    result = emitCudaAttentionGrad(*gradients.begin(), info);
  else if (scatter)
    result = emitCudaScatter(scatter, info);
  else if (foldsRows() || hasSingle)
    result = emitCudaRows(info);
  else
    result = emitCudaElements(info);
  if (mlir::failed(result) || failed)
    return failure();
  LLVM::ReturnOp::create(b, loc, ValueRange());
  return info;
}

FailureOr<CudaKernelInfo> mlir::dshard::emitCudaKernel(FusedOp fused,
                                                       ModuleOp kernels,
                                                       StringRef name,
                                                       const CudaTarget &) {
  Emitter emitter(fused, kernels, name, /*cuda=*/true);
  return emitter.emitCuda();
}
