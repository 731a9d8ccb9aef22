//===- Memory.cpp - Where buffers of a program lie ------------------------===//

#include "Memory.h"
#include "dshard/Plan/Format.h"
#include "llvm/ADT/STLExtras.h"

#include <limits>
#include <numeric>

using namespace mlir;
using namespace mlir::dshard;

int64_t mlir::dshard::layOut(std::vector<Lifetime> &lifetimes,
                             int64_t alignment) {
  auto align = [&](int64_t bytes) -> int64_t {
    return ::dshard::plan::alignTo(bytes, alignment);
  };
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), 0);
  llvm::stable_sort(order, [&](size_t a, size_t b) {
    return lifetimes[a].size > lifetimes[b].size;
  });
  int64_t arena = 0;
  std::vector<size_t> placed;
  for (size_t index : order) {
    Lifetime &lifetime = lifetimes[index];
    int64_t size = align(std::max<int64_t>(lifetime.size, 1));
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (size_t other : placed)
      if (lifetimes[other].begin <= lifetime.end &&
          lifetime.begin <= lifetimes[other].end)
        taken.push_back(
            {lifetimes[other].offset,
             lifetimes[other].offset +
                 align(std::max<int64_t>(lifetimes[other].size, 1))});
    llvm::sort(taken);
    int64_t at = 0, best = -1, bestGap = std::numeric_limits<int64_t>::max();
    for (auto [begin, end] : taken) {
      int64_t gap = begin - at;
      if (gap >= size && gap < bestGap) {
        best = at;
        bestGap = gap;
      }
      at = std::max(at, end);
    }
    lifetime.offset = best >= 0 ? best : at;
    arena = std::max(arena, lifetime.offset + size);
    placed.push_back(index);
  }
  return arena;
}
