//===- AttentionMask.cpp - What the mask of an attention says -------------===//

#include "AttentionMask.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

bool MaskReader::fail(Value value, const Twine &text) {
  if (reason.empty()) {
    llvm::raw_string_ostream os(reason);
    os << text;
    if (Operation *op = value.getDefiningOp())
      os << " (" << op->getName().getStringRef() << " of " << value.getType()
         << ")";
  }
  return false;
}

/// offset + p i + q j <= 0 for query i and key j, of the last two dims.
bool MaskReader::readGrid(const IndexGrid &grid) {
  size_t rank = grid.steps.size();
  for (size_t d = 0; d + 2 < rank; ++d)
    if (grid.steps[d] != 0)
      return false;
  int64_t c = grid.offset, p = rank >= 2 ? grid.steps[rank - 2] : 0,
          q = rank >= 1 ? grid.steps[rank - 1] : 0;
  auto most = [](int64_t step, int64_t size) {
    return std::max<int64_t>(0, step * (size - 1));
  };
  if (c + most(p, sizes.S) + most(q, sizes.T) <= 0)
    return true; // holds everywhere
  // One query, or one key: its step is 0 whatever the model meant.
  if (p == 0 && sizes.S == 1)
    p = -q;
  if (q == 0 && sizes.T == 1)
    q = -p;
  if (p == -1 && q == 1) {
    restrictCausal(-c);
    return true;
  }
  if (p == 1 && q == -1) { // i + c <= j
    mask.lowerBound = std::max(mask.lowerBound.value_or(c - 1), c - 1);
    return true;
  }
  return false;
}

bool MaskReader::readCompare(CompareOp op, ComparePredicate predicate) {
  std::optional<IndexGrid> lhs = findIndexGrid(op.getLhs()),
                           rhs = findIndexGrid(op.getRhs());
  if (!lhs || !rhs)
    return false;
  IndexGrid difference; // lhs - rhs
  difference.steps.assign(op.getResult().getType().getRank(), 0);
  auto add = [&](const IndexGrid &grid, int64_t sign) {
    difference.offset += sign * grid.offset;
    size_t lead = difference.steps.size() - grid.steps.size();
    for (auto [i, step] : llvm::enumerate(grid.steps))
      difference.steps[lead + i] += sign * step;
  };
  // Every order as "difference <= 0".
  switch (predicate) {
  case ComparePredicate::le:
  case ComparePredicate::lt:
    add(*lhs, 1);
    add(*rhs, -1);
    break;
  case ComparePredicate::ge:
  case ComparePredicate::gt:
    add(*rhs, 1);
    add(*lhs, -1);
    break;
  default:
    return false;
  }
  if (predicate == ComparePredicate::lt || predicate == ComparePredicate::gt)
    difference.offset += 1;
  return readGrid(difference);
}

/// A constant mask [.., S, T] that is causal, alike for all leading indices: of
/// booleans, or of what is added to the scores.
bool MaskReader::readConstant(Value value) {
  bool isAdded = isa<FloatType>(elementTypeOf(value));
  if (std::optional<double> splat = matchSplat(value))
    return isAdded ? *splat == 0 : *splat != 0;
  auto constant = value.getDefiningOp<ConstantOp>();
  SmallVector<HostTensor> elements;
  ArrayRef<int64_t> shape = shapeOf(value);
  if (!constant || shape.size() < 2 || shape.back() != sizes.T ||
      shape[shape.size() - 2] != sizes.S ||
      failed(constant.evaluate({}, elements)))
    return false;
  ArrayRef<double> data = elements.front().data;
  auto attends = [&](int64_t at) {
    return isAdded ? data[at] == 0 : data[at] != 0;
  };
  // The last key that query 0 attends is the offset.
  int64_t offset = -1;
  while (offset + 1 < sizes.T && attends(offset + 1))
    ++offset;
  for (int64_t at = 0, end = data.size(); at < end; ++at) {
    int64_t i = at / sizes.T % sizes.S, j = at % sizes.T;
    if (attends(at) != (j <= i + offset) ||
        (isAdded && !attends(at) && data[at] > hidingNumber))
      return false;
  }
  restrictCausal(offset);
  return true;
}

/// What depends on batch and key alone.
bool MaskReader::readPadding(Value value) {
  ArrayRef<int64_t> shape = shapeOf(value);
  if (shape.empty() || shape.back() != sizes.T)
    return false;
  for (size_t i = 0; i + 1 < shape.size(); ++i) {
    bool isBatch = shape.size() == 4 && i == 0;
    if (shape[i] != 1 && !(isBatch && shape[i] == sizes.B))
      return false;
  }
  mask.paddings.push_back(value);
  return true;
}

/// `value` [B,H,S,T] with dims of size 1 where it was broadcast; null if the
/// queries or heads really differ, or a view hides it. Builds the ops of it.
static Value buildNarrow(Value value) {
  ArrayRef<int64_t> shape = shapeOf(value);
  auto isNarrow = [](ArrayRef<int64_t> shape) {
    for (size_t i = 0; i + 1 < shape.size(); ++i)
      if (shape[i] != 1 && !(shape.size() == 4 && i == 0))
        return false;
    return true;
  };
  if (isNarrow(shape))
    return value;
  Operation *op = value.getDefiningOp();
  if (!op)
    return {};
  if (isa<BroadcastToOp>(op)) {
    ArrayRef<int64_t> from = shapeOf(op->getOperand(0));
    return from.size() == shape.size() && isNarrow(from) ? op->getOperand(0)
                                                         : Value();
  }
  if (!op->hasTrait<Pointwise>())
    return {};
  SmallVector<Value> operands;
  SmallVector<int64_t> narrow;
  for (Value operand : op->getOperands()) {
    bool isScalar = typeOf(operand).getNumElements() == 1;
    operands.push_back(isScalar ? operand : buildNarrow(operand));
    if (!operands.back())
      return {};
    narrow = DShardBuilder::broadcastShape(narrow, shapeOf(operands.back()));
  }
  OpBuilder builder(op);
  Operation *clone = builder.clone(*op);
  clone->setOperands(operands);
  clone->getResult(0).setType(typeOf(value).clone(narrow));
  return clone->getResult(0);
}

/// The operand of a reshape that only adds or drops leading dims of size 1:
/// broadcasting adds them anyhow. Null for any other value.
static Value withoutLeadingOnes(Value value) {
  auto op = value.getDefiningOp<ReshapeOp>();
  auto stripped = [](Value v) {
    ArrayRef<int64_t> shape = shapeOf(v);
    return shape.drop_while([](int64_t size) { return size == 1; });
  };
  bool isSame = op && typeOf(op.getInput()).getRank() >= 2 &&
                stripped(value) == stripped(op.getInput());
  return isSame ? Value(op.getInput()) : Value();
}

bool MaskReader::readNegated(Value value) {
  if (auto negated = value.getDefiningOp<NotOp>())
    return read(negated.getInput());
  if (isa_and_nonnull<BroadcastToOp>(value.getDefiningOp()))
    return readNegated(value.getDefiningOp()->getOperand(0));
  if (auto op = value.getDefiningOp<CompareOp>()) {
    std::optional<ComparePredicate> opposite;
    switch (op.getPredicate()) {
    case ComparePredicate::lt:
      opposite = ComparePredicate::ge;
      break;
    case ComparePredicate::le:
      opposite = ComparePredicate::gt;
      break;
    case ComparePredicate::gt:
      opposite = ComparePredicate::le;
      break;
    case ComparePredicate::ge:
      opposite = ComparePredicate::lt;
      break;
    default:
      break;
    }
    if (opposite && readCompare(op, *opposite))
      return true;
  }
  Operation *op = value.getDefiningOp();
  Value narrow = op ? buildNarrow(value) : Value();
  if (!narrow || shapeOf(narrow).empty() || shapeOf(narrow).back() != sizes.T)
    return fail(value, "what hides keys is neither causal nor key padding");
  OpBuilder builder(op);
  builder.setInsertionPointAfter(op);
  return readPadding(DShardBuilder(builder, op).unary<NotOp>(narrow));
}

bool MaskReader::read(Value value) {
  if (typeOf(value).getRank() > 4)
    return fail(value, "the mask has more than 4 dims");
  if (auto both = value.getDefiningOp<AndOp>())
    return read(both.getLhs()) && read(both.getRhs());
  if (value.getDefiningOp<ConstantOp>() && readConstant(value))
    return true;
  if (auto op = value.getDefiningOp<CompareOp>();
      op && readCompare(op, op.getPredicate()))
    return true;
  if (readPadding(value))
    return true;
  if (auto op = value.getDefiningOp<BroadcastToOp>())
    return read(op.getInput());
  if (Value same = withoutLeadingOnes(value))
    return read(same);
  if (Value narrow = buildNarrow(value);
      narrow && narrow != value && readPadding(narrow))
    return true;
  return fail(value,
              "the mask is neither causal, nor a window, nor key padding");
}

bool MaskReader::isAway(Value number, FullyMasked &fullyMasked) {
  std::optional<double> away = matchSplat(number);
  if (!away || *away > hidingNumber)
    return false;
  // Where a row attends nothing, a finite number leaves all scores alike.
  fullyMasked = std::isinf(*away) ? FullyMasked::zero : FullyMasked::uniform;
  return true;
}

/// added * condition: hidden is what both hide. Known for two causal masks: the
/// wider one (optimum cuts a triangle by the positions of a cache).
bool MaskReader::readProduct(Value value, FullyMasked &fullyMasked) {
  return matchCommutative<MulOp>(value, [&](Value added, Value factor) {
    auto cast = factor.getDefiningOp<CastOp>();
    Value condition = cast ? cast.getInput() : Value();
    if (!condition || !elementTypeOf(condition).isInteger(1))
      return false;
    AttentionMask both[2];
    if (!MaskReader(sizes, both[0]).readAdded(added, fullyMasked) ||
        !MaskReader(sizes, both[1]).readNegated(condition))
      return false;
    for (const AttentionMask &part : both)
      if (part.lowerBound || !part.paddings.empty())
        return false;
    if (both[0].causalOffset && both[1].causalOffset)
      restrictCausal(std::max(*both[0].causalOffset, *both[1].causalOffset));
    return true;
  });
}

bool MaskReader::readAdded(Value value, FullyMasked &fullyMasked) {
  if (auto op = value.getDefiningOp<SelectOp>()) {
    std::optional<double> kept = matchSplat(op.getTrueValue());
    if (kept && *kept == 0 && isAway(op.getFalseValue(), fullyMasked))
      return read(op.getCondition());
    kept = matchSplat(op.getFalseValue());
    if (isAway(op.getTrueValue(), fullyMasked)) {
      if (kept && *kept == 0)
        return readNegated(op.getCondition());
      // where(bool(u), away, u): u is 0 where it is kept.
      Value rest = op.getFalseValue();
      auto cast = op.getCondition().getDefiningOp<CastOp>();
      if (cast && cast.getInput() == rest)
        return readNegated(cast);
      // where(added + padding == 0, away, added)
      auto compare = op.getCondition().getDefiningOp<CompareOp>();
      Value sum = compare && compare.getPredicate() == ComparePredicate::eq &&
                          matchSplat(compare.getRhs()) == 0.0
                      ? Value(compare.getLhs())
                      : Value();
      Value padding;
      if (sum)
        matchCommutative<AddOp>(sum, [&](Value added, Value other) {
          return added == rest && (padding = other);
        });
      std::optional<double> all = padding ? matchSplat(padding) : std::nullopt;
      if (all && *all != 0) // a mask of ones
        return readAdded(rest, fullyMasked);
      auto from = padding ? padding.getDefiningOp<CastOp>() : CastOp();
      if (from && isa<IntegerType>(elementTypeOf(from.getInput()))) {
        // Kept where the mask is not 0.
        OpBuilder builder(compare);
        DShardBuilder make(builder, compare);
        Value shown =
            make.compare(padding, make.scalar(0, elementTypeOf(padding)),
                         ComparePredicate::ne);
        return read(shown) && readAdded(rest, fullyMasked);
      }
    }
  }
  if (value.getDefiningOp<ConstantOp>() && readConstant(value)) {
    fullyMasked = FullyMasked::uniform;
    return true;
  }
  // cast(not(mask)) * -3.4e38
  bool isProduct =
      matchCommutative<MulOp>(value, [&](Value factor, Value away) {
        auto cast = factor.getDefiningOp<CastOp>();
        auto negated = cast ? skipCasts(cast).getDefiningOp<NotOp>() : NotOp();
        return negated && isAway(away, fullyMasked) && read(negated.getInput());
      });
  if (isProduct || readProduct(value, fullyMasked))
    return true;
  if (Value same = withoutLeadingOnes(value))
    return readAdded(same, fullyMasked);
  if (auto add = value.getDefiningOp<AddOp>())
    for (int i : {0, 1})
      if (std::optional<double> number = matchSplat(add->getOperand(i));
          number && *number == 0)
        return readAdded(add->getOperand(1 - i), fullyMasked);
  if (Operation *op = value.getDefiningOp())
    if (isa<BroadcastToOp>(op) ||
        (isa<CastOp>(op) && isa<FloatType>(elementTypeOf(op->getOperand(0)))))
      return readAdded(op->getOperand(0), fullyMasked);
  return fail(value, "what is added to the scores is no mask");
}

Value mlir::dshard::buildKeyPadding(DShardBuilder &make, Value padding,
                                    ScoreSizes sizes) {
  Value table = padding;
  while (isa_and_nonnull<ReshapeOp, BroadcastToOp>(table.getDefiningOp()) &&
         !isa<GatherNdOp>(table.getDefiningOp())) {
    // Past views that keep batch and key in their places.
    Value from = table.getDefiningOp()->getOperand(0);
    if (typeOf(from).getNumElements() != typeOf(table).getNumElements())
      break;
    table = from;
  }
  // A look-up of the mask on its own index grid is the mask.
  if (auto gather = table.getDefiningOp<GatherNdOp>()) {
    ArrayRef<int64_t> from = shapeOf(gather.getInput()), shape = shapeOf(table);
    int64_t last = shape.size() - 1;
    if (gather.getBatchDims() == 0 && from.size() == 2 && !shape.empty() &&
        from[0] == shape[0] && from[1] == shape[last] &&
        from[0] * from[1] == typeOf(table).getNumElements() &&
        isOwnIndex(gather.getIndices(), {0, last}))
      table = gather.getInput();
  }
  // So is one in the flattened mask ([B*T] or [B*T,1]) on b * T + j.
  if (auto gather = table.getDefiningOp<GatherOp>()) {
    RankedTensorType from = typeOf(gather.getInput());
    ArrayRef<int64_t> shape = shapeOf(gather.getIndices());
    int64_t last = shape.size() - 1;
    std::optional<IndexGrid> grid = findIndexGrid(gather.getIndices());
    bool isFlat = grid && grid->offset == 0 && !shape.empty() &&
                  gather.getDim() == 0 &&
                  from.getDimSize(0) == from.getNumElements() &&
                  shape[0] * shape[last] == from.getNumElements() &&
                  typeOf(table).getNumElements() == from.getNumElements();
    for (int64_t d = 0; isFlat && d <= last; ++d)
      if (shape[d] != 1)
        isFlat = grid->steps[d] == (d == last ? 1 : shape[last]);
    if (isFlat)
      table = gather.getInput();
  }
  int64_t rows = typeOf(table).getNumElements() / sizes.T;
  return make.broadcastTo(make.reshape(table, {rows, sizes.T}),
                          {sizes.B, sizes.T});
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

/// What is computed from constants alone, of at most `mostElements` each.
static std::optional<HostTensor> evaluateConstant(Value value) {
  constexpr int64_t mostElements = 1 << 22;
  Operation *op = value.getDefiningOp();
  auto evaluable = dyn_cast_or_null<EvaluateInterface>(op);
  if (!evaluable || op->getNumResults() != 1 || op->getNumRegions() != 0 ||
      isa<ReshardOp>(op) || typeOf(value).getNumElements() > mostElements)
    return std::nullopt;
  SmallVector<HostTensor> operands, results;
  for (Value operand : op->getOperands()) {
    std::optional<HostTensor> known = evaluateConstant(operand);
    if (!known)
      return std::nullopt;
    operands.push_back(std::move(*known));
  }
  ScopedDiagnosticHandler quiet(op->getContext(),
                                [](Diagnostic &) { return success(); });
  if (failed(evaluable.evaluate(operands, results)) || results.size() != 1)
    return std::nullopt;
  results[0].roundToElementType();
  return std::move(results[0]);
}

/// True if no argument reaches `value`, within `budget` ops.
static bool isFromConstants(Value value, int &budget) {
  Operation *op = value.getDefiningOp();
  return op && --budget > 0 &&
         llvm::all_of(op->getOperands(), [&](Value operand) {
           return isFromConstants(operand, budget);
         });
}

std::optional<double> mlir::dshard::findSplat(Value value) {
  if (std::optional<double> number = matchSplat(value))
    return number;
  int budget = 64;
  if (!isFromConstants(value, budget))
    return std::nullopt;
  std::optional<HostTensor> tensor = evaluateConstant(value);
  if (!tensor || tensor->data.empty() ||
      !llvm::all_of(tensor->data,
                    [&](double x) { return x == tensor->data[0]; }))
    return std::nullopt;
  return tensor->data[0];
}

static bool mayHideKeys(Value value, int &budget) {
  Operation *op = value.getDefiningOp();
  if (!op || --budget <= 0 || !isa<FloatType>(elementTypeOf(value)))
    return false;
  if (auto constant = dyn_cast<ConstantOp>(op)) {
    SmallVector<HostTensor> elements;
    return succeeded(constant.evaluate({}, elements)) &&
           llvm::any_of(elements[0].data,
                        [](double x) { return x <= hidingNumber; });
  }
  if (!op->hasTrait<Pointwise>() && !isa<ReshapeOp, BroadcastToOp>(op))
    return false;
  return llvm::any_of(op->getOperands(), [&](Value operand) {
    return mayHideKeys(operand, budget);
  });
}

bool mlir::dshard::mayHideKeys(Value value) {
  int budget = 64;
  return ::mayHideKeys(value, budget);
}
