//===- WarpWide.cpp - Barriers, shuffles, votes ---------------------------===//
#include "Opcodes/Lanes.h"

#include <algorithm>
#include <cstring>

namespace dshard::emulator {
namespace {

/// shfl.sync: the source lane by mode, clamp `c`; d|p, a, b, c, members.
enum ShuffleMode { up, down, butterfly, index };
template <ShuffleMode mode>
void shuffle(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t *d = w.lanes<uint32_t>(i.operand[0]);
  uint32_t a[32];
  std::memcpy(a, w.lanes<uint32_t>(i.operand[1]), sizeof(a));
  uint32_t b[32], c[32];
  std::memcpy(b, w.lanes<uint32_t>(i.operand[2]), sizeof(b));
  std::memcpy(c, w.lanes<uint32_t>(i.operand[3]), sizeof(c));
  const uint32_t *members = w.lanes<uint32_t>(i.members);
  uint32_t present = w.groupMask, valid = 0;
  forLanes(mask, [&](unsigned l) {
    uint32_t segment = (c[l] >> 8) & 31, clamp = c[l] & 31, step = b[l] & 31;
    int low = static_cast<int>(l & segment);
    int high = static_cast<int>((l & segment) | (clamp & ~segment));
    int from = static_cast<int>(l);
    bool ok = false;
    switch (mode) {
    case up:
      from = static_cast<int>(l) - static_cast<int>(step);
      ok = from >= high; // for .up, the clamp is the lower end
      break;
    case down:
      from = static_cast<int>(l + step);
      ok = from <= high;
      break;
    case butterfly:
      from = static_cast<int>(l ^ step);
      ok = from <= high;
      break;
    case index:
      from = low | static_cast<int>(step & ~segment);
      ok = from <= high;
      break;
    }
    if (!ok)
      from = static_cast<int>(l);
    // A lane of the member mask that is not here was reported already.
    if (!((present >> from) & 1)) {
      if (!((members[l] >> from) & 1))
        w.launch->report(Fault::shuffleInactive, i, w, l,
                         "reads lane " + std::to_string(from) +
                             ", which does not take part");
      from = static_cast<int>(l);
    }
    d[l] = a[from];
    valid |= uint32_t(ok) << l;
  });
  if (i.target != ~0u) {
    uint32_t &p = w.predicate(i.target);
    p = (p & ~mask) | (valid & mask);
  }
}

void ballot(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t *d = w.lanes<uint32_t>(i.operand[0]);
  uint32_t p = w.predicate(i.operand[1]);
  p = i.flag ? ~p : p;
  const uint32_t *members = w.lanes<uint32_t>(i.members);
  forLanes(mask, [&](unsigned l) { d[l] = p & mask & members[l]; });
}
/// 0 all, 1 any, 2 uni
template <int kind> void vote(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t p = w.predicate(i.operand[1]);
  p = i.flag ? ~p : p;
  const uint32_t *members = w.lanes<uint32_t>(i.members);
  uint32_t result = 0;
  forLanes(mask, [&](unsigned l) {
    uint32_t all = mask & members[l], yes = p & all;
    bool v = kind == 0   ? yes == all
             : kind == 1 ? yes != 0
                         : yes == 0 || yes == all;
    result |= uint32_t(v) << l;
  });
  uint32_t &d = w.predicate(i.operand[0]);
  d = (d & ~mask) | result;
}
void activeMask(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t *d = w.lanes<uint32_t>(i.operand[0]);
  forLanes(mask, [&](unsigned l) { d[l] = mask; });
}
void warpSync(Warp &w, const Instruction &, uint32_t) {
  w.syncTick = ++w.launch->tick;
}
void nothing(Warp &, const Instruction &, uint32_t) {}

template <typename T, int kind> // 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor
void reduce(Warp &w, const Instruction &i, uint32_t mask) {
  T *d = w.lanes<T>(i.operand[0]);
  T a[32];
  std::memcpy(a, w.lanes<T>(i.operand[1]), sizeof(a));
  const uint32_t *members = w.lanes<uint32_t>(i.members);
  forLanes(mask, [&](unsigned l) {
    uint32_t lanes = mask & members[l];
    T total = T();
    bool first = true;
    forLanes(lanes, [&](unsigned k) {
      T v = a[k];
      if (first)
        total = v;
      else
        total = kind == 0   ? static_cast<T>(uint32_t(total) + uint32_t(v))
                : kind == 1 ? std::min(total, v)
                : kind == 2 ? std::max(total, v)
                : kind == 3 ? (total & v)
                : kind == 4 ? (total | v)
                            : (total ^ v);
      first = false;
    });
    d[l] = total;
  });
}
template <typename T> Handler pickReduce(int kind) {
  static const Handler handlers[] = {reduce<T, 0>, reduce<T, 1>, reduce<T, 2>,
                                     reduce<T, 3>, reduce<T, 4>, reduce<T, 5>};
  return handlers[kind];
}

bool members(Decoding &d, unsigned operand) {
  d.instruction.control = Control::meet;
  return d.source(operand, d.instruction.members, Type::u32);
}

} // namespace

bool decode_shfl(Decoding &d) {
  Instruction &i = d.instruction;
  if (!d.take("sync"))
    return d.fail("only .sync is known");
  int mode = d.takeOneOf({"up", "down", "bfly", "idx"});
  if (mode < 0 || sizeOf(d.takeType()) != 4 || d.operands.size() != 5)
    return d.fail("not known in this form");
  static const Handler handlers[] = {shuffle<up>, shuffle<down>,
                                     shuffle<butterfly>, shuffle<index>};
  i.target = ~0u;
  if (!d.operands[0].second.empty() && d.operands[0].second != "_") {
    ParsedOperand second;
    second.text = d.operands[0].second;
    bool negated;
    if (!d.predicate(second, i.target, negated))
      return false;
  }
  return d.destination(0, i.operand[0], 4) &&
         d.source(1, i.operand[1], Type::b32) &&
         d.source(2, i.operand[2], Type::u32) &&
         d.source(3, i.operand[3], Type::u32) && members(d, 4) &&
         setHandler(d, handlers[mode]);
}

bool decode_vote(Decoding &d) {
  Instruction &i = d.instruction;
  if (!d.take("sync"))
    return d.fail("only .sync is known");
  int kind = d.takeOneOf({"ballot", "all", "any", "uni"});
  d.takeType();
  if (kind < 0 || d.operands.size() != 3)
    return d.fail("not known in this form");
  bool negated;
  if (!d.predicate(d.operands[1], i.operand[1], negated) || !members(d, 2))
    return false;
  i.flag = negated;
  static const Handler handlers[] = {ballot, vote<0>, vote<1>, vote<2>};
  return d.destination(0, i.operand[0], kind == 0 ? 4 : 0) &&
         setHandler(d, handlers[kind]);
}

bool decode_activemask(Decoding &d) {
  return sizeOf(d.takeType()) == 4 &&
         d.destination(0, d.instruction.operand[0], 4) &&
         setHandler(d, activeMask);
}

bool decode_redux(Decoding &d) {
  Instruction &i = d.instruction;
  if (!d.take("sync"))
    return d.fail("only .sync is known");
  int kind = d.takeOneOf({"add", "min", "max", "and", "or", "xor"});
  Type type = d.takeType();
  if (kind < 0 || sizeOf(type) != 4 || isFloat(type) || d.operands.size() != 3)
    return d.fail("not known in this form");
  return d.destination(0, i.operand[0], 4) && d.source(1, i.operand[1], type) &&
         members(d, 2) &&
         setHandler(d, type == Type::s32 ? pickReduce<int32_t>(kind)
                                         : pickReduce<uint32_t>(kind));
}

/// bar.sync 0, barrier.sync 0, barrier.cta.sync.aligned.all 0, bar.warp.sync.
bool decode_bar(Decoding &d) {
  Instruction &i = d.instruction;
  if (d.take("warp")) {
    if (!d.take("sync") || d.operands.size() != 1)
      return d.fail("not known in this form");
    return members(d, 0) && setHandler(d, warpSync);
  }
  d.take("cta");
  if (!d.take("sync"))
    return d.fail("only .sync is known");
  d.take("aligned");
  d.take("all");
  if (d.operands.size() != 1 || d.operands[0].kind != ParsedOperand::integer ||
      d.operands[0].value != 0)
    return d.fail("only barrier 0 of the whole block is known");
  i.control = Control::barrier;
  return setHandler(d, nothing);
}
bool decode_barrier(Decoding &d) { return decode_bar(d); }

} // namespace dshard::emulator
