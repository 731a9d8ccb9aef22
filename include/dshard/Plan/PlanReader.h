//===- PlanReader.h - Reading a plan ----------------------------*- C++ -*-===//
//
// Maps a plan file and proves its form, so that nobody behind it checks again:
// header, sizes, version, checksum, the FlatBuffers verifier, and then every
// index, range, enumeration and size of the metadata (lib/Plan/Validate.cpp).
// What a plan means (written before read, no deadlock) is the verifier's.
//
// A plan is trusted like an executable: this guards against damage, not malice.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_PLANREADER_H
#define DSHARD_PLAN_PLANREADER_H

#include "dshard/Plan/Format.h"
#include "dshard/Plan/Instructions.h"
#include "dshard/Support/Status.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dshard::plan {

class Reader {
public:
  /// Errors begin with the path.
  static Result<std::unique_ptr<Reader>> open(const std::string &path);
  /// The same checks on a file image; `name` stands for the path in errors.
  static Result<std::unique_ptr<Reader>> fromBytes(std::vector<uint8_t> bytes,
                                                   std::string name);
  ~Reader();

  const Plan &plan() const { return *root; }
  const std::string &name() const { return fileName; }
  /// The file's checksum. Ranks compare it before they start.
  const Hash128 &hash() const { return checksum; }
  uint64_t fileSize() const { return size; }

  std::string_view string(uint32_t index) const;
  /// A page-aligned place in the sections (Image.offset).
  const uint8_t *section(uint64_t offset) const { return sections + offset; }

private:
  Reader() = default;
  Status check();

  struct Storage;
  std::unique_ptr<Storage> storage;
  std::string fileName;
  const uint8_t *data = nullptr;
  uint64_t size = 0;
  const Plan *root = nullptr;
  const uint8_t *sections = nullptr;
  Hash128 checksum;
};

/// Bounds of everything in the metadata; `sectionsSize` bounds the images.
/// Guarantees, among others: every vector is present (may be empty); strings,
/// states, buffers, bases, tables, scalars, groups, kernels, images, sources,
/// files, blocks, programs, stages and events exist; uses and values of every
/// instruction have the layout of Instructions.def and counts are literals;
/// blocks do not contain themselves (nesting of 64 at most); loop indices name
/// an enclosing repeat; buffers lie inside the arena or their state, states
/// inside the state region; tables have an entry for every coordinate.
Status validatePlan(const Plan &plan, uint64_t sectionsSize);

} // namespace dshard::plan

#endif // DSHARD_PLAN_PLANREADER_H
