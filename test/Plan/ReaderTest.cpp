// The reader: damage of any kind is an error, never a crash.
#include "TestPlan.h"
#include "dshard/Plan/PlanPrinter.h"
#include "dshard/Plan/PlanStatistics.h"
#include "dshard/Support/File.h"

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <random>

using namespace dshard;
using namespace dshard::plan;

namespace {

std::vector<uint8_t> handBuiltFile() {
  Builder builder;
  test::HandBuiltOptions options;
  options.image = true;
  test::buildHandBuiltPlan(builder, options);
  return builder.finish();
}

std::string openError(std::vector<uint8_t> bytes) {
  return Reader::fromBytes(std::move(bytes), "p").status().message();
}

/// Changes a header field and makes the checksum right again.
template <typename T>
std::string headerError(std::vector<uint8_t> file, size_t offset, T value) {
  std::memcpy(file.data() + offset, &value, sizeof(value));
  Hash128 hash = computeChecksum(file.data(), file.size());
  std::memcpy(file.data() + offsetof(FileHeader, checksum), &hash,
              sizeof(hash));
  return openError(std::move(file));
}

TEST(Reader, AcceptsAnIntactFile) { EXPECT_EQ(openError(handBuiltFile()), ""); }

TEST(Reader, Truncation) {
  std::vector<uint8_t> file = handBuiltFile();
  std::vector<size_t> sizes;
  for (size_t size = 0; size <= sizeof(FileHeader) + 8; ++size)
    sizes.push_back(size);
  for (size_t size = 100; size < file.size(); size += 97)
    sizes.push_back(size);
  sizes.push_back(file.size() - 1);
  for (size_t size : sizes) {
    std::string error = openError({file.begin(), file.begin() + size});
    ASSERT_NE(error.find("truncated"), std::string::npos)
        << size << ": " << error;
  }
  EXPECT_EQ(openError({file.begin(), file.begin() + 600}),
            "p: truncated: the header says " + std::to_string(file.size()) +
                " bytes, the file has 600");
  EXPECT_EQ(openError({}),
            "p: truncated: a plan's header has 64 bytes, the file has 0");
  file.push_back(0);
  EXPECT_NE(openError(file).find("something was appended"), std::string::npos);
}

TEST(Reader, HeaderFields) {
  std::vector<uint8_t> file = handBuiltFile();
  EXPECT_EQ(openError({'P', 'K', 3, 4, 0, 0, 0, 0}),
            "p: not a plan: it does not begin with 'DSPF'");
  EXPECT_EQ(headerError(file, offsetof(FileHeader, version), uint32_t{7}),
            "p: plan format version is 7, this program reads version 4: "
            "compile the model again");
  const char *ranges = "p: the header's ranges do not fit the file";
  for (size_t field : {offsetof(FileHeader, metadataOffset),
                       offsetof(FileHeader, metadataSize),
                       offsetof(FileHeader, sectionsOffset),
                       offsetof(FileHeader, sectionsSize)})
    for (uint64_t value : {uint64_t{1}, file.size() + 1, ~uint64_t{0}}) {
      std::string error = headerError(file, field, value);
      bool isSmallMetadata =
          field == offsetof(FileHeader, metadataSize) && value == 1;
      ASSERT_EQ(error.find(isSmallMetadata ? "p: the metadata is not" : ranges),
                0u)
          << field << " " << value << ": " << error;
    }
  std::vector<uint8_t> altered = file;
  altered[sizeof(FileHeader) + 40] ^= 1;
  EXPECT_EQ(
      openError(altered).find("p: checksum differs: the file was altered"), 0u);
}

// Every byte of the file is under the checksum, and the checksum itself counts.
TEST(Reader, RandomCorruptions) {
  std::vector<uint8_t> file = handBuiltFile();
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<uint8_t> damaged = file;
    int changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < changes; ++i) {
      // Half of them in header and metadata.
      size_t limit = random() % 2 ? damaged.size() : sizeof(FileHeader) + 2000;
      damaged[random() % limit] ^= static_cast<uint8_t>(1 + random() % 255);
    }
    if (damaged == file)
      continue;
    ASSERT_NE(openError(std::move(damaged)), "") << round;
  }
}

// Behind a right checksum any metadata is an error or harmless: what the reader
// accepts can be printed, counted and verified.
TEST(Reader, CorruptMetadataNeverCrashes) {
  std::vector<uint8_t> file = handBuiltFile();
  FileHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  std::mt19937_64 random(2);
  int accepted = 0, rejected = 0;
  for (int round = 0; round < 4000; ++round) {
    std::vector<uint8_t> damaged = file;
    int changes = 1 + static_cast<int>(random() % 3);
    for (int i = 0; i < changes; ++i) {
      size_t at = header.metadataOffset + random() % header.metadataSize;
      damaged[at] = random() % 3 ? static_cast<uint8_t>(random() % 8)
                                 : static_cast<uint8_t>(random());
    }
    Hash128 hash = computeChecksum(damaged.data(), damaged.size());
    std::memcpy(damaged.data() + offsetof(FileHeader, checksum), &hash,
                sizeof(hash));
    auto reader = Reader::fromBytes(std::move(damaged), "p");
    if (!reader) {
      ++rejected;
      continue;
    }
    ++accepted;
    const Plan &plan = (*reader)->plan();
    EXPECT_FALSE(printPlan(plan).empty());
    (void)planStatistics(plan);
    (void)verifyPlan(plan);
  }
  EXPECT_GT(rejected, 1000);
  EXPECT_GT(accepted, 100);
}

TEST(Reader, Files) {
  EXPECT_EQ(Reader::open("/none/x.dsplan").status().message(),
            "/none/x.dsplan: cannot open: No such file or directory");
  std::string path = ::testing::TempDir() + "dshard-reader.dsplan";
  ASSERT_TRUE(writeFile(path, "", 0).ok());
  EXPECT_EQ(Reader::open(path).status().message(),
            path + ": truncated: a plan's header has 64 bytes, the file has 0");
  std::remove(path.c_str());
}

//===----------------------------------------------------------------------===//
// Bounds
//===----------------------------------------------------------------------===//

struct BoundsCase {
  const char *name;
  std::function<void(PlanT &)> edit;
  const char *error;
};

Value &valueOf(PlanT &plan, uint32_t instruction, uint32_t at) {
  ProgramT &run = *plan.programs[1];
  return run.values[run.instructions[instruction].values_begin() + at];
}
BufferUse &useOf(PlanT &plan, uint32_t instruction, uint32_t at) {
  ProgramT &run = *plan.programs[1];
  return run.uses[run.instructions[instruction].uses_begin() + at];
}

// Instructions of `run`: 0 fill, 1 repeat, 2 if, 3 matmul, 4 call, 5 record, 6
// wait, 7 permute, 8 record, 9 wait, 10 all_gather, 11 all_reduce; 12 matmul,
// 13 copy (body); 14 fill (then); 15 fill (else); 16, 17 copy.
const std::vector<BoundsCase> &boundsCases() {
  static const std::vector<BoundsCase> cases = {
      {"version", [](PlanT &p) { p.version = 9; }, "version 9, expected 4"},
      {"no_strings", [](PlanT &p) { p.strings.clear(); }, "string 0"},
      {"no_provenance", [](PlanT &p) { p.provenance.reset(); },
       "a part is missing"},
      {"mesh_zero", [](PlanT &p) { p.mesh[0].mutate_size(0); }, "no ranks"},
      {"mesh_huge", [](PlanT &p) { p.mesh[0].mutate_size(1u << 21); },
       "more than 1048576"},
      {"mesh_names", [](PlanT &p) { p.mesh[0] = p.mesh[1]; },
       "different names"},
      {"group_axis", [](PlanT &p) { p.groups[0]->axes[0].mutate_axis(2); },
       "group 0: axis 2 does not exist, there are 2"},
      {"group_divides", [](PlanT &p) { p.groups[0]->axes[0].mutate_size(3); },
       "does not divide an axis of size 2"},
      {"group_overlap",
       [](PlanT &p) { p.groups[0]->axes.push_back(p.groups[0]->axes[0]); },
       "is used twice"},
      {"table_values", [](PlanT &p) { p.tables[0]->values.push_back(1); },
       "table 0 has 3 values for 2 coordinates"},
      {"table_axis", [](PlanT &p) { p.tables[0]->axes[0] = 5; },
       "table 0: axis 5"},
      {"scalar_type",
       [](PlanT &p) { p.scalars[0].mutate_dtype(DataType::f16); },
       "a scalar is"},
      {"source_file", [](PlanT &p) { p.sources[0]->file = 1; },
       "weight source 0: file 1 does not exist"},
      {"source_length", [](PlanT &p) { p.sources[0]->length = 60; },
       "has 60 bytes, its type has 64"},
      {"source_range", [](PlanT &p) { p.sources[0]->offset = 65; },
       "byte range is [65, +64), beyond 128"},
      {"source_type", [](PlanT &p) { p.sources[0]->stored.reset(); },
       "type is missing"},
      {"state_huge", [](PlanT &p) { p.state_size = ~uint64_t{0}; },
       "states have 18446744073709551615 bytes, at most"},
      {"arena_huge", [](PlanT &p) { p.programs[1]->arena_size = ~uint64_t{0}; },
       "an arena of 18446744073709551615 and"},
      {"scratch_huge",
       [](PlanT &p) { p.programs[1]->thread_scratch = ~uint64_t{0}; },
       "a scratch of 18446744073709551615 bytes"},
      {"state_room", [](PlanT &p) { p.state_size = 16; },
       "state 0 in the state region is [0, +32), beyond 16"},
      {"state_align", [](PlanT &p) { p.states[0]->offset = 32; },
       "not a multiple of 64"},
      {"state_size", [](PlanT &p) { p.states[0]->size = 16; },
       "its local type needs 32"},
      {"state_type",
       [](PlanT &p) { p.states[0]->local->dtype = static_cast<DataType>(77); },
       "data type 77"},
      {"state_dims",
       [](PlanT &p) {
         p.states[0]->local->dims = {-1, 2};
       },
       "has dim -1"},
      {"image_range", [](PlanT &p) { p.images[0]->size = 9000; },
       "image 0 is [0, +9000), beyond 5000"},
      {"image_align", [](PlanT &p) { p.images[0]->offset = 8; },
       "not page aligned"},
      {"kernel_image", [](PlanT &p) { p.kernels[0].mutate_image(4); },
       "image 4 does not exist"},
      {"kernel_grain", [](PlanT &p) { p.kernels[0].mutate_grain(0); },
       "grain 0"},
      {"kernel_grid", [](PlanT &p) { p.kernels[0].mutate_grid(4); },
       "kernel 0 has a grid, but runs on a CPU"},
      {"image_kind", [](PlanT &p) { p.images[0]->kind = ImageKind::ptx; },
       "image 0 is ptx in a plan for cpu:x86-64"},
      {"image_target", [](PlanT &p) { p.target = "cuda:sm_90"; },
       "image 0 is elf in a plan for cuda:sm_90"},
      {"gpu_kernel_block",
       [](PlanT &p) {
         p.target = "cuda:sm_90";
         p.images[0]->kind = ImageKind::ptx;
         p.kernels[0].mutate_grid(1);
         p.kernels[0].mutate_block(2048);
       },
       "kernel 0 has grid 1, block 2048, shared 0, 2 buffers"},
      {"gpu_kernel_entry",
       [](PlanT &p) {
         p.target = "cuda:sm_90";
         p.images[0]->kind = ImageKind::ptx;
         p.kernels[0].mutate_grid(1);
         p.kernels[0].mutate_block(32);
       },
       "kernel 0 has an entry, an extent or a grain, but runs on a GPU"},
      {"load", [](PlanT &p) { p.load = 2; }, "load program 2 does not exist"},
      {"entry_program", [](PlanT &p) { p.entries[0]->programs[0] = 3; },
       "program 3 does not exist"},
      {"action_stage",
       [](PlanT &p) { p.entries[0]->actions[0]->actions[0].mutate_stage(1); },
       "action of stage 1"},
      {"action_micro_batch", [](PlanT &p) { p.entries[0]->micro_batches = 0; },
       "action of micro-batch 0"},
      {"port_buffer", [](PlanT &p) { p.entries[0]->inputs[0]->buffer = 99; },
       "buffer 99 does not exist"},
      {"port_size",
       [](PlanT &p) {
         p.entries[0]->inputs[0]->local->dims = {20, 4};
       },
       "needs one slot of 320 bytes"},
      {"port_dims",
       [](PlanT &p) { p.entries[0]->inputs[0]->local->dims = {8}; },
       "2 global and 1 local dims"},
      {"port_names",
       [](PlanT &p) { p.entries[0]->inputs[0]->dim_names.push_back(0); },
       "3 dim names for 2 dims"},
      {"arena", [](PlanT &p) { p.programs[1]->arena_size = 448; },
       "buffer 8 at 448 with 1 x 32 bytes lies beyond 448"},
      {"arena_slots",
       [](PlanT &p) { p.programs[1]->buffers[3].mutate_slots(9); },
       "lies beyond 512"},
      {"arena_overflow",
       [](PlanT &p) {
         p.programs[1]->buffers[3].mutate_slot_stride(~uint64_t{63});
       },
       "lies beyond 512"},
      {"buffer_align",
       [](PlanT &p) { p.programs[1]->buffers[2].mutate_offset(68); },
       "begins at 68, not a multiple of 64"},
      {"buffer_dims",
       [](PlanT &p) { p.programs[1]->buffers[2].mutate_dims_begin(999); },
       "dims is [999, +2)"},
      {"buffer_size",
       [](PlanT &p) { p.programs[1]->buffers[2].mutate_size(8); },
       "has 8 bytes, its dims need 16"},
      {"buffer_state",
       [](PlanT &p) { p.programs[1]->buffers[1].mutate_state(1); },
       "state 1 does not exist"},
      {"buffer_slots",
       [](PlanT &p) { p.programs[1]->buffers[2].mutate_slots(0); },
       "has no slots"},
      {"slot_stride",
       [](PlanT &p) { p.programs[1]->buffers[3].mutate_slot_stride(8); },
       "slots of 16 bytes, 8 bytes apart"},
      {"view", [](PlanT &p) { p.programs[1]->buffers[10].mutate_offset(192); },
       "view that does not lie inside its base, buffer 9"},
      {"base", [](PlanT &p) { p.programs[1]->buffers[10].mutate_base(99); },
       "base 99 does not exist"},
      {"block_begin",
       [](PlanT &p) { p.programs[1]->blocks[1].mutate_begin(11); },
       "block 1 begins at 11, expected 12"},
      {"block_count",
       [](PlanT &p) { p.programs[1]->blocks[5].mutate_count(2); },
       "blocks hold 19 of 18"},
      {"block_index", [](PlanT &p) { valueOf(p, 1, 0).mutate_value(6); },
       "'block' is 6, expected 0 to 5"},
      {"block_table", [](PlanT &p) { p.tables[1]->values[1] = 6; },
       "'block' is 6, expected 0 to 5"},
      {"block_scalar", [](PlanT &p) { valueOf(p, 4, 0) = scalarValue(0); },
       "must be a literal or a table"},
      {"block_recursion", [](PlanT &p) { valueOf(p, 1, 0).mutate_value(0); },
       "contains itself"},
      {"kind",
       [](PlanT &p) { p.programs[1]->instructions[3].mutate_kind(999); },
       "has kind 999"},
      {"stream",
       [](PlanT &p) { p.programs[1]->instructions[3].mutate_stream(2); },
       "stream 2 does not exist"},
      {"string",
       [](PlanT &p) { p.programs[1]->instructions[3].mutate_node(4000); },
       "string 4000 does not exist"},
      {"uses_range",
       [](PlanT &p) { p.programs[1]->instructions[3].mutate_uses_begin(9999); },
       "uses is [9999, +5)"},
      {"uses_count",
       [](PlanT &p) { p.programs[1]->instructions[3].mutate_uses_count(4); },
       "matmul: has 4 uses, expected 5"},
      {"values_count",
       [](PlanT &p) { p.programs[1]->instructions[3].mutate_values_count(17); },
       "matmul: has 17 values, expected 16"},
      {"use_buffer", [](PlanT &p) { useOf(p, 3, 0).mutate_buffer(77); },
       "'lhs': buffer 77 does not exist"},
      {"use_absent",
       [](PlanT &p) { useOf(p, 3, 0).mutate_buffer(absentBuffer); },
       "'lhs': buffer 4294967295 does not exist"},
      {"use_access",
       [](PlanT &p) { useOf(p, 3, 4).mutate_access(Access::read); },
       "'out' must be written"},
      {"use_slot",
       [](PlanT &p) { useOf(p, 3, 3).mutable_slot().mutate_value(-1); },
       "slot is -1"},
      {"loop_slot", [](PlanT &p) { useOf(p, 3, 3) = read(3, loopIndex()); },
       "enclosing repeat 0 does not exist, there are 0"},
      {"event", [](PlanT &p) { p.programs[1]->events = 1; },
       "'event': 1 does not exist, there are 1"},
      {"group_index", [](PlanT &p) { valueOf(p, 10, 0).mutate_value(2); },
       "'group': 2 does not exist"},
      {"operands_table", [](PlanT &p) { valueOf(p, 10, 1) = tableValue(0); },
       "'operands' must be a literal"},
      {"reduction", [](PlanT &p) { valueOf(p, 11, 2).mutate_value(5); },
       "'reduction': 5 does not exist"},
      {"peer", [](PlanT &p) { p.tables[2]->values[0] = 2; },
       "'to' is 2, expected 0 to 1"},
      {"ndims", [](PlanT &p) { valueOf(p, 13, 0).mutate_value(9); },
       "has 9 values"},
      {"size_negative", [](PlanT &p) { valueOf(p, 13, 1).mutate_value(-2); },
       "'sizes' is -2"},
      {"flag", [](PlanT &p) { valueOf(p, 3, 14).mutate_value(2); },
       "'packed': 2 does not exist"},
      {"activation", [](PlanT &p) { valueOf(p, 3, 15).mutate_value(5); },
       "'activation': 5 does not exist"},
      {"count_float",
       [](PlanT &p) {
         p.scalars[0].mutate_dtype(DataType::f32);
         valueOf(p, 1, 1) = scalarValue(0);
       },
       "scalar of type f32, expected an integer"},
      {"scalar_index", [](PlanT &p) { valueOf(p, 2, 0) = scalarValue(1); },
       "scalar 1 does not exist"},
      {"permutation",
       [](PlanT &p) { p.programs[0]->values[7].mutate_value(0); },
       "'permutation' is not a permutation"},
      {"source_index",
       [](PlanT &p) { p.programs[0]->values[0].mutate_value(1); },
       "'source' is 1"},
  };
  return cases;
}

class ReaderBounds : public ::testing::TestWithParam<BoundsCase> {};

TEST_P(ReaderBounds, AreChecked) {
  Builder builder;
  test::HandBuiltOptions options;
  options.image = true;
  test::buildHandBuiltPlan(builder, options);
  GetParam().edit(builder.plan);
  std::string error = test::readerError(builder);
  EXPECT_NE(error.find(GetParam().error), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(Reader, ReaderBounds,
                         ::testing::ValuesIn(boundsCases()),
                         [](const auto &info) {
                           return std::string(info.param.name);
                         });

} // namespace
