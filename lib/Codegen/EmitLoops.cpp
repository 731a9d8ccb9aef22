//===- EmitLoops.cpp - The function of a kernel and its loops -------------===//

#include "Emitter.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::dshard;

static int64_t product(ArrayRef<int64_t> dims) {
  int64_t result = 1;
  for (int64_t dim : dims)
    result *= dim;
  return result;
}

Emitter::Emitter(FusedOp fused, ModuleOp module, StringRef name, bool cuda)
    : fused(fused), module(module), name(name.str()), b(fused.getContext()),
      loc(fused.getLoc()), m(b, loc), cuda(cuda) {}

//===----------------------------------------------------------------------===//
// Scopes
//===----------------------------------------------------------------------===//

Scope *Emitter::scopeOf(Value value) const {
  auto it = scopes.find(value);
  return it == scopes.end() ? const_cast<Scope *>(&root) : it->second;
}

Scope *Emitter::deepest(Scope *a, Scope *b) const {
  return a->depth >= b->depth ? a : b;
}

Scope *Emitter::emissionScope(ArrayRef<Value> inputs) const {
  Scope *scope = const_cast<Scope *>(&root);
  for (Value input : inputs)
    if (input)
      scope = deepest(scope, scopeOf(input));
  for (Scope *s = current; s; s = s->parent)
    if (s->barrier)
      return deepest(scope, s);
  return scope;
}

void Emitter::inScope(Scope *scope, function_ref<void()> make) {
  if (scope == current) {
    make();
    return;
  }
  OpBuilder::InsertionGuard guard(b);
  Scope *saved = current;
  b.setInsertionPoint(scope->child);
  current = scope;
  make();
  current = saved;
}

SmallVector<Value, 2>
Emitter::once(Operation *op, const Index &index, uintptr_t tag,
              function_ref<SmallVector<Value, 2>()> make) {
  std::vector<uintptr_t> key = {reinterpret_cast<uintptr_t>(op), tag,
                                static_cast<uintptr_t>(index.lane + 1),
                                static_cast<uintptr_t>(index.width),
                                static_cast<uintptr_t>(index.stride)};
  for (Value at : index.at)
    key.push_back(reinterpret_cast<uintptr_t>(at.getAsOpaquePointer()));
  Scope *scope = emissionScope(index.at);
  for (Scope *s = scope; s; s = s->parent) {
    auto it = s->memo.find(key);
    if (it != s->memo.end())
      return it->second;
  }
  SmallVector<Value, 2> result;
  inScope(scope, [&] {
    result = make();
    for (Value value : result)
      if (!scopes.count(value) &&
          value.getParentBlock() != &function.getBody().front())
        own(value);
  });
  scope->memo[key] = result;
  return result;
}

SmallVector<Value>
Emitter::loop(Value low, Value high, int64_t step, ValueRange carried,
              function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto forOp =
      scf::ForOp::create(b, loc, low, high, constantIndex(step), carried);
  Operation *savedChild = current->child;
  current->child = forOp;
  Scope scope;
  scope.parent = current;
  scope.depth = current->depth + 1;
  scope.uniform = current->uniform;
  {
    OpBuilder::InsertionGuard guard(b);
    if (carried.empty())
      b.setInsertionPoint(forOp.getBody()->getTerminator());
    else
      b.setInsertionPointToEnd(forOp.getBody());
    current = &scope;
    own(forOp.getInductionVar());
    for (Value value : forOp.getRegionIterArgs())
      own(value);
    SmallVector<Value> next =
        body(forOp.getInductionVar(), forOp.getRegionIterArgs());
    if (!carried.empty())
      scf::YieldOp::create(b, loc, next);
    current = scope.parent;
  }
  current->child = savedChild;
  for (Value value : forOp.getResults())
    own(value);
  return SmallVector<Value>(forOp.getResults());
}

Value Emitter::branch(Value condition, Type type,
                      function_ref<Value()> thenBody,
                      function_ref<Value()> elseBody) {
  auto ifOp = scf::IfOp::create(b, loc, TypeRange{type}, condition,
                                /*withElseRegion=*/true);
  Operation *savedChild = current->child;
  current->child = ifOp;
  for (bool isThen : {true, false}) {
    OpBuilder::InsertionGuard guard(b);
    Block *block = isThen ? ifOp.thenBlock() : ifOp.elseBlock();
    b.setInsertionPointToEnd(block);
    Scope scope;
    scope.parent = current;
    scope.depth = current->depth + 1;
    scope.uniform = current->uniform;
    scope.barrier = true;
    current = &scope;
    Value value = isThen ? thenBody() : elseBody();
    scf::YieldOp::create(b, loc, value);
    current = scope.parent;
  }
  current->child = savedChild;
  own(ifOp.getResult(0));
  return ifOp.getResult(0);
}

//===----------------------------------------------------------------------===//
// Index arithmetic
//===----------------------------------------------------------------------===//

Value Emitter::constantIndex(int64_t value) {
  Value &constant = constants[value];
  if (!constant) {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(&function.getBody().front());
    constant = m.integer(value);
  }
  return constant;
}

static std::optional<int64_t> constantOf(Value value) {
  APInt number;
  if (matchPattern(value, m_ConstantInt(&number)))
    return number.getSExtValue();
  return std::nullopt;
}

Value Emitter::binaryIndex(int kind, Value x, Value y,
                           function_ref<Value(Value, Value)> make) {
  Index key({x, y});
  return once(nullptr, key, kind + 1,
              [&] { return SmallVector<Value, 2>{make(x, y)}; })[0];
}

Value Emitter::addIndex(Value x, Value y) {
  auto a = constantOf(x), c = constantOf(y);
  if (a && c)
    return constantIndex(*a + *c);
  if (a && *a == 0)
    return y;
  if (c && *c == 0)
    return x;
  return binaryIndex(0, x, y, [&](Value x, Value y) {
    return arith::AddIOp::create(b, loc, x, y).getResult();
  });
}

Value Emitter::mulIndex(Value x, int64_t y) {
  if (auto a = constantOf(x))
    return constantIndex(*a * y);
  if (y == 1)
    return x;
  if (y == 0)
    return constantIndex(0);
  return binaryIndex(1, x, constantIndex(y), [&](Value x, Value y) {
    return arith::MulIOp::create(b, loc, x, y).getResult();
  });
}

Value Emitter::divIndex(Value x, int64_t y) {
  if (auto a = constantOf(x))
    return constantIndex(*a / y);
  if (y == 1)
    return x;
  return binaryIndex(2, x, constantIndex(y), [&](Value x, Value y) {
    return arith::DivUIOp::create(b, loc, x, y).getResult();
  });
}

Value Emitter::remIndex(Value x, int64_t y) {
  if (auto a = constantOf(x))
    return constantIndex(*a % y);
  if (y == 1)
    return constantIndex(0);
  return binaryIndex(3, x, constantIndex(y), [&](Value x, Value y) {
    return arith::RemUIOp::create(b, loc, x, y).getResult();
  });
}

Value Emitter::linearize(ArrayRef<Value> at, ArrayRef<int64_t> shape) {
  Value linear = constantIndex(0);
  for (auto [index, size] : llvm::zip_equal(at, shape))
    linear = addIndex(mulIndex(linear, size), index);
  return linear;
}

SmallVector<Value, 4> Emitter::delinearize(Value linear,
                                           ArrayRef<int64_t> shape) {
  SmallVector<Value, 4> at(shape.size());
  bool whole = true; // the major part needs no remainder
  for (int64_t d = static_cast<int64_t>(shape.size()) - 1; d >= 0; --d) {
    whole = product(shape.take_front(d)) == 1;
    at[d] = shape[d] == 1 ? constantIndex(0)
            : whole       ? linear
                          : remIndex(linear, shape[d]);
    if (!whole)
      linear = divIndex(linear, shape[d]);
    else if (shape[d] != 1)
      linear = constantIndex(0);
  }
  return at;
}

//===----------------------------------------------------------------------===//
// The function
//===----------------------------------------------------------------------===//

SmallVector<int64_t> Emitter::shapeOf(Value value) const {
  auto type = cast<RankedTensorType>(value.getType());
  if (flat)
    return {type.getNumElements()};
  return SmallVector<int64_t>(type.getShape());
}

Value Emitter::materializeConstant(ConstantOp op) {
  auto elements = dyn_cast<DenseElementsAttr>(op.getValue());
  if (!elements) {
    op.emitError("holds its value in a form that kernels cannot take");
    failed = true;
    return Value();
  }
  std::string bytes;
  Type element = elementOf(op.getResult());
  unsigned size = m.storageType(element).getIntOrFloatBitWidth() / 8;
  auto append = [&](const APInt &bits) {
    uint64_t value = bits.getZExtValue();
    bytes.append(reinterpret_cast<const char *>(&value), size);
  };
  if (isa<FloatType>(element))
    for (const APFloat &value : elements.getValues<APFloat>())
      append(value.bitcastToAPInt());
  else
    for (const APInt &value : elements.getValues<APInt>())
      append(value);
  auto type = LLVM::LLVMArrayType::get(b.getI8Type(), bytes.size());
  StringAttr data = b.getStringAttr(bytes);
  OpBuilder::InsertionGuard guard(b);
  LLVM::GlobalOp global;
  for (auto other : module.getOps<LLVM::GlobalOp>())
    if (other.getValueAttr() == data) // tables that several kernels read
      global = other;
  if (!global) {
    b.setInsertionPointToStart(module.getBody());
    global = LLVM::GlobalOp::create(
        b, loc, type, /*isConstant=*/true, LLVM::Linkage::Internal,
        name + "_data" + std::to_string(pointers.size()), data,
        /*alignment=*/64, /*addrSpace=*/cuda ? 1 : 0);
  }
  b.setInsertionPointToStart(&function.getBody().front());
  return LLVM::AddressOfOp::create(b, loc, global);
}

LogicalResult Emitter::begin() {
  MLIRContext *context = b.getContext();
  auto pointer = LLVM::LLVMPointerType::get(context);
  b.setInsertionPointToEnd(module.getBody());
  function = LLVM::LLVMFuncOp::create(
      b, loc, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context),
                                  {pointer, b.getI64Type(), b.getI64Type()}));
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToEnd(entry);
  begin_ = entry->getArgument(1);
  end_ = entry->getArgument(2);
  int64_t number = 0;
  auto next = [&] {
    Value slot = LLVM::GEPOp::create(
        b, loc, pointer, pointer, entry->getArgument(0),
        ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(number++)});
    return LLVM::LoadOp::create(b, loc, pointer, slot).getResult();
  };
  Block &body = fused.getBody().front();
  for (Value argument : body.getArguments())
    pointers[argument] = next();
  for (unsigned i = 0; i < fused.getNumResults(); ++i)
    outputs.push_back(next());
  materializeConstants();
  return success(!failed);
}

void Emitter::materializeConstants() {
  for (auto constant : fused.getBody().front().getOps<ConstantOp>()) {
    auto elements = dyn_cast<DenseElementsAttr>(constant.getValue());
    if (elements && elements.isSplat())
      continue;
    pointers[constant.getResult()] = materializeConstant(constant);
  }
}

LogicalResult Emitter::analyze() {
  Block &body = fused.getBody().front();
  for (Operation &op : body.without_terminator()) {
    if (cuda ? !isCudaKernelOp(&op) : !isKernelOp(&op))
      return op.emitError("has no generated ")
             << (cuda ? "CUDA" : "CPU") << " kernel for these types";
    for (Value value : op.getResults())
      if (cast<RankedTensorType>(value.getType()).getNumElements() == 0)
        return op.emitError("has a result without elements; empty tensors are "
                            "not supported in kernels");
  }
  auto yield = cast<YieldOp>(body.getTerminator());
  if (yield.getValues().empty())
    return fused.emitError("is a kernel without a result");

  // One flat range of elements, if every value has them all or just one.
  int64_t count = 1;
  for (Value value : yield.getValues())
    count = std::max(count,
                     cast<RankedTensorType>(value.getType()).getNumElements());
  auto isWhole = [&](Value value) {
    int64_t n = cast<RankedTensorType>(value.getType()).getNumElements();
    return n == count || n == 1;
  };
  flat = llvm::all_of(body.getArguments(), isWhole) &&
         llvm::all_of(yield.getValues(), [&](Value value) {
           return cast<RankedTensorType>(value.getType()).getNumElements() ==
                  count;
         });
  for (Operation &op : body.without_terminator()) {
    flat &= op.hasTrait<Pointwise>() || isa<ConstantOp, ReshapeOp>(op);
    flat &= llvm::all_of(op.getResults(), isWhole);
  }
  for (auto scatter : body.getOps<ScatterAddOp>())
    if (yield.getValues()[0] != scatter.getResult() ||
        yield.getValues().size() != 1)
      return scatter.emitError("is not the only result of its kernel");
  return success();
}

FailureOr<KernelInfo> Emitter::emit() {
  if (mlir::failed(analyze()))
    return failure();
  Block &body = fused.getBody().front();
  auto yield = cast<YieldOp>(body.getTerminator());
  KernelInfo info;
  info.buffers = body.getNumArguments() + fused.getNumResults();
  if (mlir::failed(begin()))
    return failure();
  auto scatter = yield.getValues()[0].getDefiningOp<ScatterAddOp>();
  LogicalResult result = scatter     ? emitScatter(scatter, info)
                         : flat      ? emitFlat(info)
                         : columns() ? emitColumns(info)
                                     : emitRows(info);
  if (mlir::failed(result) || failed)
    return failure();
  LLVM::ReturnOp::create(b, loc, ValueRange());
  return info;
}

int64_t Emitter::widthLimit() {
  if (cuda) {
    // 128 bits of the widest tensor of those that the time goes to: of ids or a
    // bias, less than an eighth of the largest result, few bytes are read.
    auto countOf = [](Value value) {
      return cast<RankedTensorType>(value.getType()).getNumElements();
    };
    Block &body = fused.getBody().front();
    int64_t largest = 0;
    for (Value value : body.getTerminator()->getOperands())
      largest = std::max(largest, countOf(value));
    unsigned bytes = 1;
    auto visit = [&](Value value) {
      if (8 * countOf(value) >= largest)
        bytes = std::max(
            bytes, m.storageType(elementOf(value)).getIntOrFloatBitWidth() / 8);
    };
    llvm::for_each(body.getArguments(), visit);
    llvm::for_each(body.getTerminator()->getOperands(), visit);
    return 16 / bytes;
  }
  // Sixteen lanes: two AVX2 registers or one of AVX-512.
  int64_t limit = 16;
  fused.getBody().walk([&](Operation *op) {
    for (Value value : op->getResults())
      if (elementOf(value).getIntOrFloatBitWidth() == 64)
        limit = 8;
  });
  return limit;
}

double Emitter::costOfElement() {
  double cost = 1;
  for (Operation &op : fused.getBody().front().without_terminator()) {
    if (isa<ExpOp, LogOp, TanhOp, ErfOp, SigmoidOp, SiluOp, GeluOp, SwigluOp,
            SinOp, CosOp, AtanOp, PowOp, SoftmaxOp, ModOp>(op))
      cost += 8;
    else if (auto reduce = dyn_cast<ReduceOp>(op))
      cost +=
          static_cast<double>(reduce.getInput().getType().getNumElements()) /
          reduce.getResult().getType().getNumElements();
    else if (isa<RmsNormOp, LayerNormOp>(op))
      cost += 4;
    else if (!isa<ConstantOp, ReshapeOp>(op))
      cost += 1;
  }
  return cost;
}

LogicalResult Emitter::emitFlat(KernelInfo &info) {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  info.extent = shapeOf(yield.getValues()[0])[0];
  info.grain = std::max<int64_t>(
      64,
      llvm::alignTo(static_cast<int64_t>(workPerPiece / costOfElement()), 64));
  int64_t width = info.extent >= 8 ? widthLimit() : 1;
  auto body = [&](Value at, int64_t lanes) -> void {
    Index index({at});
    if (info.extent == 1)
      index.at[0] = constantIndex(0);
    if (lanes > 1)
      index.lane = 0, index.width = lanes;
    SmallVector<Value> values;
    for (Value value : yield.getValues())
      values.push_back(eval(value, index));
    for (auto [number, value] : llvm::enumerate(values))
      store(number, index, value);
  };
  overElements(begin_, splitOf(begin_, end_, width), end_, width, body);
  return success();
}

Value Emitter::splitOf(Value low, Value high, int64_t width) {
  if (width == 1)
    return low;
  Value n = arith::SubIOp::create(b, loc, high, low);
  Value rest = arith::RemUIOp::create(b, loc, n, constantIndex(width));
  return arith::SubIOp::create(b, loc, high, rest);
}

void Emitter::overElements(Value low, Value split, Value high, int64_t width,
                           function_ref<void(Value, int64_t)> body) {
  auto wrap = [&](int64_t lanes) {
    return [&body, lanes](Value at, ValueRange) {
      body(at, lanes);
      return SmallVector<Value>();
    };
  };
  if (width > 1)
    loop(low, split, width, {}, wrap(width));
  loop(width > 1 ? split : low, high, 1, {}, wrap(1));
}

FailureOr<RowNest> Emitter::rowsOf() {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  RowNest nest;
  for (Value value : yield.getValues()) {
    auto type = cast<RankedTensorType>(value.getType());
    if (!nest.largest || type.getNumElements() > nest.largest.getNumElements())
      nest.largest = type;
  }
  for (Value value : yield.getValues())
    if (!haveSameRows(nest.largest, cast<RankedTensorType>(value.getType())))
      return fused.emitError("is a kernel whose results have different rows");

  // A reduction that drops the last dim gives one place per iteration: lanes
  // run along what is reduced.
  nest.places = nest.largest.getRank() == 0;
  for (auto reduce : fused.getBody().front().getOps<ReduceOp>()) {
    int64_t last = reduce.getInput().getType().getRank() - 1;
    nest.places |= !reduce.getKeepDims() && !reduce.getDims().empty() &&
                   reduce.getDims().back() == last &&
                   reduce.getResult().getType().getNumElements() ==
                       nest.largest.getNumElements();
  }
  nest.rows.assign(nest.largest.getShape().begin(),
                   nest.largest.getShape().end());
  if (!nest.places)
    nest.depth = nest.rows.pop_back_val();
  nest.width = nest.places || nest.depth < 4 ? 1 : widthLimit();
  for (Value value : yield.getValues()) {
    auto type = cast<RankedTensorType>(value.getType());
    if (nest.width > 1 && type.getShape() == nest.largest.getShape())
      nest.width = std::min(
          nest.width, laneWidth(value, type.getRank() - 1, 1, nest.width));
  }
  while (nest.width > nest.depth)
    nest.width /= 2;
  return nest;
}

Emitter::Stores Emitter::valuesOfRow(const RowNest &nest, ArrayRef<Value> row,
                                     Value column, int64_t lanes, bool whole) {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  Stores stores;
  for (auto [output, value] : llvm::enumerate(yield.getValues())) {
    auto type = cast<RankedTensorType>(value.getType());
    if ((type.getShape() == nest.largest.getShape()) != whole)
      continue;
    Index index(row);
    if (whole && !nest.places) {
      index.at.push_back(column);
      if (lanes > 1)
        index.lane = type.getRank() - 1, index.width = lanes;
    } else if (!whole && type.getRank() == nest.largest.getRank()) {
      index.at.push_back(constantIndex(0));
    }
    stores.push_back({output, index, eval(value, index)});
  }
  return stores;
}

LogicalResult Emitter::emitRows(KernelInfo &info) {
  FailureOr<RowNest> found = rowsOf();
  if (mlir::failed(found))
    return failure();
  const RowNest &nest = *found;
  info.extent = product(nest.rows);
  info.grain = std::max<int64_t>(
      1, static_cast<int64_t>(workPerPiece / (nest.depth * costOfElement())));
  info.grain = std::min(info.grain, info.extent);

  loop(begin_, end_, 1, {}, [&](Value row, ValueRange) {
    Value number = info.extent == 1 ? constantIndex(0) : row;
    SmallVector<Value, 4> at = delinearize(number, nest.rows);
    auto body = [&](Value column, int64_t lanes, bool whole) {
      for (auto &[output, index, value] :
           valuesOfRow(nest, at, column, lanes, whole))
        store(output, index, value);
      return SmallVector<Value>();
    };
    // Single places of a row first: they read what the row may overwrite.
    body(Value(), 1, false);
    if (nest.places)
      return body(Value(), 1, true);
    int64_t width = nest.width, depth = nest.depth;
    int64_t split = width > 1 ? depth / width * width : 0;
    if (split)
      loop(constantIndex(0), constantIndex(split), width, {},
           [&](Value column, ValueRange) { return body(column, width, true); });
    if (split < depth)
      loop(constantIndex(split), constantIndex(depth), 1, {},
           [&](Value column, ValueRange) { return body(column, 1, true); });
    return SmallVector<Value>();
  });
  return success();
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

/// Row-major strides.
static SmallVector<int64_t> stridesOf(ArrayRef<int64_t> shape) {
  SmallVector<int64_t> strides(shape.size(), 1);
  for (int64_t d = static_cast<int64_t>(shape.size()) - 2; d >= 0; --d)
    strides[d] = strides[d + 1] * shape[d + 1];
  return strides;
}

Value Emitter::load(Value base, Value tensor, const Index &index) {
  SmallVector<int64_t> shape = shapeOf(tensor), strides = stridesOf(shape);
  Type element = elementOf(tensor), storage = m.storageType(element);
  unsigned bytes = storage.getIntOrFloatBitWidth() / 8;
  Type pointer = base.getType();
  Value offset = linearize(index.at, shape);
  auto address = [&](int64_t add) {
    Value at = add ? addIndex(offset, constantIndex(add)) : offset;
    return LLVM::GEPOp::create(b, loc, pointer, storage, base,
                               ArrayRef<LLVM::GEPArg>{at});
  };
  if (index.single()) {
    Value stored = LLVM::LoadOp::create(b, loc, storage, address(0), bytes);
    return m.fromStorage(stored, element);
  }
  int64_t stride = strides[index.lane] * index.stride;
  auto vector = VectorType::get({index.width}, storage);
  Value stored;
  if (stride == 1) {
    stored = LLVM::LoadOp::create(b, loc, vector, address(0),
                                  alignmentOf(offset, bytes, index.width));
  } else {
    SmallVector<Value> elements;
    for (int64_t i = 0; i < index.width; ++i)
      elements.push_back(
          LLVM::LoadOp::create(b, loc, storage, address(i * stride), bytes));
    stored = vector::FromElementsOp::create(b, loc, vector, elements);
  }
  return m.fromStorage(stored, element);
}

void Emitter::store(unsigned output, const Index &index, Value value) {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  Value tensor = yield.getValues()[output];
  Type element = elementOf(tensor), storage = m.storageType(element);
  value =
      m.toStorage(m.splat(value, index.single() ? 0 : index.width), element);
  Value offset = linearize(index.at, shapeOf(tensor));
  Value address =
      LLVM::GEPOp::create(b, loc, outputs[output].getType(), storage,
                          outputs[output], ArrayRef<LLVM::GEPArg>{offset});
  LLVM::StoreOp::create(b, loc, value, address,
                        alignmentOf(offset, storage.getIntOrFloatBitWidth() / 8,
                                    index.single() ? 1 : index.width));
}

FailureOr<KernelInfo> mlir::dshard::emitKernel(FusedOp fused, ModuleOp kernels,
                                               StringRef name) {
  Emitter emitter(fused, kernels, name);
  return emitter.emit();
}
