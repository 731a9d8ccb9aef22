//===- LoadStore.cpp - ld, st and what orders them ------------------------===//
#include "Execution/Access.h"
#include "Opcodes/Lanes.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace dshard::emulator {
namespace {

inline uint64_t addressOf(Warp &w, const Instruction &i, uint32_t operand,
                          unsigned lane) {
  uint64_t base = i.wideAddress ? w.lanes<uint64_t>(operand)[lane]
                                : w.lanes<uint32_t>(operand)[lane];
  return base + static_cast<uint64_t>(i.immediate);
}

/// Registers are operand[0..count-1]; the address is operand[9].
template <typename T>
inline void put(Warp &w, const Instruction &i, unsigned lane,
                const uint8_t *from) {
  if (i.registerBytes == sizeof(T)) {
    if (i.count == 1) {
      std::memcpy(w.lanes<T>(i.operand[0]) + lane, from, sizeof(T));
      return;
    }
    for (unsigned k = 0; k < i.count; ++k)
      std::memcpy(w.lanes<T>(i.operand[k]) + lane, from + k * sizeof(T),
                  sizeof(T));
    return;
  }
  if constexpr (sizeof(T) < 8) {
    for (unsigned k = 0; k < i.count; ++k) {
      T value;
      std::memcpy(&value, from + k * sizeof(T), sizeof(T));
      int64_t wide =
          i.isSigned
              ? static_cast<int64_t>(static_cast<std::make_signed_t<T>>(value))
              : static_cast<int64_t>(value);
      std::memcpy(w.lanes<uint8_t>(i.operand[k]) + lane * i.registerBytes,
                  &wide, i.registerBytes);
    }
  }
}

template <typename T, Space space>
void load(Warp &w, const Instruction &i, uint32_t mask) {
  const unsigned bytes = sizeof(T) * i.count;
  const AccessKind kind = i.readOnly ? AccessKind::readOnly : AccessKind::read;
  alignas(16) static const uint8_t zeros[64] = {};
  if constexpr (space == Space::param) {
    // The same for all lanes, nearly always.
    const uint8_t *from = parameterAccess(
        w, i, __builtin_ctz(mask),
        addressOf(w, i, i.operand[9], __builtin_ctz(mask)), bytes);
    forLanes(
        mask, [&](unsigned l) __attribute__((always_inline)) {
          put<T>(w, i, l, from ? from : zeros);
        });
    return;
  }
  if constexpr (space == Space::shared) {
    const SharedMarks marks(w, i);
    const uint8_t *shared = w.launch->shared;
    forLanes(
        mask, [&](unsigned l) __attribute__((always_inline)) {
          uint64_t offset = addressOf(w, i, i.operand[9], l);
          const uint8_t *from = shared + offset;
          if ((offset & (bytes - 1)) ||
              !marks.mark<AccessKind::read>(l, offset, bytes))
            from = sharedAccess(w, i, l, offset, bytes, kind, nullptr);
          put<T>(w, i, l, from ? from : zeros);
        });
    return;
  }
  if constexpr (space == Space::global) {
    GlobalMarks marks(w, i);
    forLanes(
        mask, [&](unsigned l) __attribute__((always_inline)) {
          uint64_t address = addressOf(w, i, i.operand[9], l);
          const uint8_t *from = reinterpret_cast<const uint8_t *>(address);
          if ((address & (bytes - 1)) ||
              !(i.readOnly ? marks.mark<AccessKind::readOnly>(l, address, bytes)
                           : marks.mark<AccessKind::read>(l, address, bytes)))
            from = globalAccess(w, i, l, address, bytes, kind);
          put<T>(w, i, l, from ? from : zeros);
        });
    return;
  }
  forLanes(
      mask, [&](unsigned l) __attribute__((always_inline)) {
        const uint8_t *from = spaceAccess<space>(
            w, i, l, addressOf(w, i, i.operand[9], l), bytes, kind, nullptr);
        put<T>(w, i, l, from ? from : zeros);
      });
}

/// Marks the store and tells where it goes; null after a report.
template <Space space, typename Marks>
inline uint8_t *target(Marks &marks, Warp &w, const Instruction &i,
                       unsigned lane, uint64_t address, unsigned bytes,
                       const uint8_t *value) {
  if constexpr (space == Space::shared || space == Space::global)
    if (!(address & (bytes - 1)) &&
        marks.template mark<AccessKind::write>(lane, address, bytes))
      return space == Space::shared ? w.launch->shared + address
                                    : reinterpret_cast<uint8_t *>(address);
  return spaceAccess<space>(w, i, lane, address, bytes, AccessKind::write,
                            value);
}

template <typename T, Space space>
void store(Warp &w, const Instruction &i, uint32_t mask) {
  const unsigned count = std::min<unsigned>(i.count, 8);
  const unsigned bytes = sizeof(T) * count;
  std::conditional_t<space == Space::shared, SharedMarks, GlobalMarks> marks(w,
                                                                             i);
  forLanes(
      mask, [&](unsigned l) __attribute__((always_inline)) {
        alignas(16) uint8_t value[64];
        for (unsigned k = 0; k < count; ++k)
          std::memcpy(value + k * sizeof(T),
                      w.lanes<uint8_t>(i.operand[k]) + l * i.registerBytes,
                      sizeof(T));
        uint64_t address = addressOf(w, i, i.operand[9], l);
        if (uint8_t *to = target<space>(marks, w, i, l, address, bytes, value))
          std::memcpy(to, value, bytes);
      });
}

template <typename T, bool isLoad> Handler pickSpace(Space space) {
  switch (space) {
  case Space::generic:
    return isLoad ? load<T, Space::generic> : store<T, Space::generic>;
  case Space::global:
    return isLoad ? load<T, Space::global> : store<T, Space::global>;
  case Space::shared:
    return isLoad ? load<T, Space::shared> : store<T, Space::shared>;
  case Space::local:
    return isLoad ? load<T, Space::local> : store<T, Space::local>;
  case Space::constant:
    return isLoad ? load<T, Space::constant> : nullptr;
  case Space::param:
    return isLoad ? load<T, Space::param> : nullptr;
  }
  return nullptr;
}
template <bool isLoad> Handler pickBytes(unsigned bytes, Space space) {
  switch (bytes) {
  case 1:
    return pickSpace<uint8_t, isLoad>(space);
  case 2:
    return pickSpace<uint16_t, isLoad>(space);
  case 4:
    return pickSpace<uint32_t, isLoad>(space);
  case 8:
    return pickSpace<uint64_t, isLoad>(space);
  default:
    return nullptr;
  }
}

/// b128 registers are pairs of 64-bit words side by side.
template <bool isLoad, Space space>
void wide128(Warp &w, const Instruction &i, uint32_t mask) {
  forLanes(
      mask, [&](unsigned l) __attribute__((always_inline)) {
        Bits128 *value = w.lanes<Bits128>(i.operand[0]) + l;
        uint8_t *at = spaceAccess<space>(
            w, i, l, addressOf(w, i, i.operand[9], l), 16,
            isLoad ? (i.readOnly ? AccessKind::readOnly : AccessKind::read)
                   : AccessKind::write,
            value);
        if (isLoad) {
          if (at)
            std::memcpy(value, at, 16);
          else
            *value = {0, 0};
        } else if (at) {
          std::memcpy(at, value, 16);
        }
      });
}
template <bool isLoad> Handler pick128(Space space) {
  switch (space) {
  case Space::generic:
    return wide128<isLoad, Space::generic>;
  case Space::global:
    return wide128<isLoad, Space::global>;
  case Space::shared:
    return wide128<isLoad, Space::shared>;
  default:
    return nullptr;
  }
}

/// Modifiers that only hint at caching, or order what lock step orders anyway.
void takeHints(Decoding &d) {
  while (d.takeOneOf({"weak",
                      "relaxed",
                      "volatile",
                      "acquire",
                      "release",
                      "gpu",
                      "cta",
                      "sys",
                      "cluster",
                      "ca",
                      "cg",
                      "cs",
                      "lu",
                      "cv",
                      "wb",
                      "wt",
                      "L1::no_allocate",
                      "L1::evict_last",
                      "L1::evict_first",
                      "L1::evict_normal",
                      "L1::evict_unchanged",
                      "L2::64B",
                      "L2::128B",
                      "L2::256B",
                      "unified"}) >= 0)
    ;
}

bool decodeAccess(Decoding &d, bool isLoad) {
  Instruction &i = d.instruction;
  takeHints(d);
  Space space = Space::generic;
  switch (d.takeOneOf({"global", "shared", "shared::cta", "local", "const",
                       "param", "param::entry"})) {
  case 0:
    space = Space::global;
    break;
  case 1:
  case 2:
    space = Space::shared;
    break;
  case 3:
    space = Space::local;
    break;
  case 4:
    space = Space::constant;
    break;
  case 5:
  case 6:
    space = Space::param;
    break;
  default:
    break;
  }
  i.readOnly = isLoad && d.take("nc");
  takeHints(d);
  int vector = d.takeOneOf({"v2", "v4", "v8"});
  i.count = static_cast<uint8_t>(vector < 0 ? 1 : 2 << vector);
  Type type = d.takeType();
  if (type == Type::none || d.operands.size() != 2)
    return d.fail("not known in this form");
  i.bytes = static_cast<uint8_t>(sizeOf(type));
  i.isSigned = isSigned(type);
  Space named = space;
  bool known;
  if (!d.address(isLoad ? 1 : 0, i.operand[9], named, known))
    return false;
  if (known && space == Space::generic && named != Space::global &&
      named != Space::constant)
    return d.fail("a variable of another space");
  Kernel &kernel = d.resolver.kernel();
  unsigned granule = i.bytes * i.count >= 4 ? 4 : i.bytes * i.count;
  if (space == Space::shared || space == Space::generic)
    kernel.sharedGranule =
        static_cast<uint8_t>(std::min<unsigned>(kernel.sharedGranule, granule));
  if (space == Space::global || space == Space::generic)
    kernel.globalGranule =
        static_cast<uint8_t>(std::min<unsigned>(kernel.globalGranule, granule));

  ParsedOperand &value = d.operands[isLoad ? 0 : 1];
  std::vector<ParsedOperand> one = {value};
  std::vector<ParsedOperand> &elements =
      value.kind == ParsedOperand::vector ? value.elements : one;
  if (elements.size() != i.count)
    return d.fail("expects " + std::to_string(i.count) + " registers");
  for (unsigned k = 0; k < i.count; ++k) {
    const ParsedOperand &element = elements[k];
    unsigned bytes = d.registerBytes(element);
    if (element.kind == ParsedOperand::sink && isLoad) {
      bytes = std::max(2u, sizeOf(type));
      i.operand[k] = d.scratch(bytes);
    } else if (element.kind != ParsedOperand::name) { // st of an immediate
      if (isLoad)
        return d.fail("a register is expected");
      bytes = std::max(2u, sizeOf(type));
      if (!d.source(element, i.operand[k],
                    sizeOf(type) == 1 ? Type::b16 : type))
        return false;
    } else if (d.resolver.registerType(element.text) == Type::none) {
      if (isLoad || !d.source(element, i.operand[k], type))
        return d.fail("a register is expected");
      bytes = sizeOf(type);
    } else {
      i.operand[k] = d.resolver.registerOffset(element.text);
    }
    if (bytes < sizeOf(type) || bytes < 2 || (k && bytes != i.registerBytes))
      return d.fail("a register of another width");
    i.registerBytes = static_cast<uint8_t>(bytes);
  }
  if (type == Type::b128)
    return i.count == 1 &&
           setHandler(d, isLoad ? pick128<true>(space) : pick128<false>(space));
  return setHandler(d, isLoad ? pickBytes<true>(i.bytes, space)
                              : pickBytes<false>(i.bytes, space));
}

void nothing(Warp &, const Instruction &, uint32_t) {}

} // namespace

bool decode_ld(Decoding &d) { return decodeAccess(d, true); }
bool decode_ldu(Decoding &d) { return decodeAccess(d, true); }
bool decode_st(Decoding &d) { return decodeAccess(d, false); }

bool decode_prefetch(Decoding &d) {
  d.takeOneOf({"global", "local"});
  d.takeOneOf({"L1", "L2"});
  return setHandler(d, nothing);
}
/// Fences: blocks run one after the other and warps in lock step.
bool decode_membar(Decoding &d) {
  d.takeOneOf({"gl", "cta", "sys"});
  return setHandler(d, nothing);
}
bool decode_fence(Decoding &d) {
  d.takeOneOf({"acq_rel", "sc", "acquire", "release"});
  d.takeOneOf({"gpu", "cta", "sys", "cluster"});
  return setHandler(d, nothing);
}

} // namespace dshard::emulator
