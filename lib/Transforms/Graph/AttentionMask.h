//===- AttentionMask.h - What the mask of an attention says -----*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_GRAPH_ATTENTIONMASK_H
#define DSHARD_LIB_TRANSFORMS_GRAPH_ATTENTIONMASK_H

#include "IndexGrid.h"
#include "Match.h"
#include <optional>
#include <string>

namespace mlir::dshard {

/// What a boolean mask [B,H,S,T] says; true: may attend.
struct AttentionMask {
  std::optional<int64_t> causalOffset; // j <= i + offset
  std::optional<int64_t> lowerBound;   // j > i + bound
  SmallVector<Value> paddings;         // [1 or B, 1, 1, T] of i1

  bool isEmpty() const {
    return !causalOffset && !lowerBound && paddings.empty();
  }
};

/// The sizes of the scores [B,H,S,T].
struct ScoreSizes {
  int64_t B, H, S, T;
};

/// Takes masks apart; says in `reason` what it does not understand. Where it
/// does not, `mask` holds a part of what it read.
class MaskReader {
public:
  MaskReader(ScoreSizes sizes, AttentionMask &mask)
      : sizes(sizes), mask(mask) {}
  /// True: may attend.
  bool read(Value value);
  /// True: masked.
  bool readNegated(Value value);
  /// A mask that is added to the scores.
  bool readAdded(Value value, FullyMasked &fullyMasked);
  std::string reason;

private:
  bool readCompare(CompareOp op, ComparePredicate predicate);
  bool readGrid(const IndexGrid &difference);
  bool readConstant(Value value);
  bool readPadding(Value value);
  bool readProduct(Value value, FullyMasked &fullyMasked);
  bool isAway(Value number, FullyMasked &fullyMasked);
  bool fail(Value value, const Twine &text);
  void restrictCausal(int64_t offset) {
    mask.causalOffset = std::min(mask.causalOffset.value_or(offset), offset);
  }
  ScoreSizes sizes;
  AttentionMask &mask;
};

/// The padding as [B,T].
Value buildKeyPadding(DShardBuilder &make, Value padding, ScoreSizes sizes);

/// Numbers at or below this, added to a score, hide it.
constexpr double hidingNumber = -1e4;

/// The number that `value` is everywhere, computed from constants if need be.
std::optional<double> findSplat(Value value);

/// True if a constant that hides keys is among what `value` is computed from,
/// element by element.
bool mayHideKeys(Value value);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_GRAPH_ATTENTIONMASK_H
