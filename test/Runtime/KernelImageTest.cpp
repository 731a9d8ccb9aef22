// The loader of code images: a hand-made image runs, each forbidden thing is
// refused by name, and damage anywhere in the headers never gets past it.

#include "dshard/Runtime/Cpu/KernelImage.h"

#include <cstring>
#include <elf.h>
#include <functional>
#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::cpu;

namespace {

/// A shared object with read-only data at 0, code at 0x1000, writable data at
/// 0x2000 and a dynamic section with the given entries.
struct Image {
  std::vector<uint8_t> bytes = std::vector<uint8_t>(0x3000);
  Elf64_Ehdr header = {};
  std::vector<Elf64_Phdr> segments;
  std::vector<Elf64_Dyn> dynamic;

  Image() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_DYN;
    header.e_machine = EM_X86_64;
    header.e_phoff = 64;
    header.e_phentsize = sizeof(Elf64_Phdr);
    add(PT_LOAD, PF_R, 0, 0x800, 0x800);
    add(PT_LOAD, PF_R | PF_X, 0x1000, 0x100, 0x100);
    add(PT_LOAD, PF_R | PF_W, 0x2000, 0x100, 0x200);
    add(PT_DYNAMIC, PF_R, 0x400, 0, 0);
    // buffers[0][begin] = end
    const uint8_t code[] = {0x48, 0x8b, 0x07, 0x48, 0x89, 0x14, 0xf0, 0xc3};
    std::memcpy(&bytes[0x1040], code, sizeof(code));
  }
  void add(uint32_t type, uint32_t flags, uint64_t at, uint64_t size,
           uint64_t memory) {
    Elf64_Phdr segment = {};
    segment.p_type = type;
    segment.p_flags = flags;
    segment.p_offset = segment.p_vaddr = at;
    segment.p_filesz = size;
    segment.p_memsz = memory;
    segments.push_back(segment);
  }
  void tag(int64_t name, uint64_t value) {
    Elf64_Dyn entry = {};
    entry.d_tag = name;
    entry.d_un.d_val = value;
    dynamic.push_back(entry);
  }
  std::vector<uint8_t> finish() {
    header.e_phnum = static_cast<uint16_t>(segments.size());
    std::vector<uint8_t> result = bytes;
    segments[3].p_filesz = dynamic.size() * sizeof(Elf64_Dyn);
    std::memcpy(result.data(), &header, sizeof(header));
    std::memcpy(result.data() + 64, segments.data(),
                segments.size() * sizeof(Elf64_Phdr));
    if (!dynamic.empty())
      std::memcpy(&result[0x400], dynamic.data(),
                  dynamic.size() * sizeof(Elf64_Dyn));
    return result;
  }
};

std::string refusal(const std::function<void(Image &)> &change) {
  Image image;
  change(image);
  std::vector<uint8_t> bytes = image.finish();
  return KernelImage::load(bytes.data(), bytes.size()).status().message();
}

std::string why(const char *text) {
  return std::string("code image of the plan: ") + text;
}

} // namespace

#if defined(__x86_64__)
TEST(KernelImage, RunsItsCode) {
  Image image;
  image.tag(DT_RELASZ, 0);
  image.tag(DT_NULL, 0);
  image.tag(DT_NEEDED, 1); // behind the end
  std::vector<uint8_t> bytes = image.finish();
  auto loaded = KernelImage::load(bytes.data(), bytes.size());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  auto function = (*loaded)->function(0x1040);
  ASSERT_TRUE(function.ok());
  int64_t data[4] = {};
  void *buffers[1] = {data};
  (*function)(buffers, 2, 77);
  EXPECT_EQ(data[2], 77);
  for (uint64_t outside : {0x40, 0xfff, 0x1100, 0x2000, 0x100000})
    EXPECT_FALSE((*loaded)->function(outside).ok());
}
#endif

TEST(KernelImage, RefusesWhatCannotStandAlone) {
  auto tag = [](int64_t name, uint64_t value) {
    return refusal([&](Image &image) { image.tag(name, value); });
  };
  EXPECT_EQ(tag(DT_NEEDED, 1), why("it needs other libraries"));
  EXPECT_EQ(tag(DT_RELASZ, 24), why("it has dynamic relocations"));
  EXPECT_EQ(tag(DT_RELSZ, 16), why("it has dynamic relocations"));
  EXPECT_EQ(tag(DT_PLTRELSZ, 24), why("it has dynamic relocations"));
  EXPECT_EQ(tag(DT_TEXTREL, 0), why("it has relocations in its code"));
  EXPECT_EQ(tag(DT_INIT, 0x1000), why("it has constructors or destructors"));
  EXPECT_EQ(tag(DT_INIT_ARRAYSZ, 8), why("it has constructors or destructors"));
  EXPECT_EQ(tag(DT_FINI_ARRAYSZ, 8), why("it has constructors or destructors"));
  auto segment = [](uint32_t type) {
    return refusal([&](Image &image) { image.add(type, PF_R, 0, 8, 8); });
  };
  EXPECT_EQ(segment(PT_TLS), why("it has thread-local storage"));
  EXPECT_EQ(segment(PT_INTERP), why("it wants an interpreter"));
}

TEST(KernelImage, RefusesOtherFormatsAndBadSegments) {
  EXPECT_EQ(refusal([](Image &i) { i.header.e_ident[0] = 0; }),
            why("it is not ELF"));
  EXPECT_EQ(refusal([](Image &i) { i.header.e_machine = EM_AARCH64; }),
            why("it is not for x86-64"));
  EXPECT_EQ(refusal([](Image &i) { i.header.e_type = ET_REL; }),
            why("it is not a shared object"));
  EXPECT_EQ(refusal([](Image &i) { i.header.e_phoff = 0x2ff0; }),
            why("its program headers reach beyond its end"));
  EXPECT_EQ(refusal([](Image &i) { i.segments[1].p_flags |= PF_W; }),
            why("a segment is writable and executable"));
  EXPECT_EQ(refusal([](Image &i) { i.segments[2].p_filesz = 0x4000; }),
            why("a segment reaches beyond its end"));
  EXPECT_EQ(refusal([](Image &i) { i.segments[2].p_memsz = ~0ull; }),
            why("a segment reaches beyond its end"));
  EXPECT_EQ(refusal([](Image &i) { i.segments[2].p_vaddr = ~0ull; }),
            why("a segment reaches beyond its end"));
  EXPECT_EQ(refusal([](Image &i) { i.segments[1].p_vaddr = 0x7f0; }),
            why("segments of different protection share a page"));
  EXPECT_EQ(refusal([](Image &i) {
              for (Elf64_Phdr &segment : i.segments)
                segment.p_type = PT_NOTE;
            }),
            why("it has no loadable segment"));
  uint8_t little[10] = {};
  EXPECT_FALSE(KernelImage::load(little, sizeof(little)).ok());
}

// No byte of the headers can make the loader read or write outside.
TEST(KernelImage, SurvivesDamage) {
  std::vector<uint8_t> good = Image().finish();
  for (size_t at = 0; at < 64 + 4 * sizeof(Elf64_Phdr); ++at)
    for (uint8_t value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::vector<uint8_t> bad = good;
      bad[at] = value;
      (void)KernelImage::load(bad.data(), bad.size());
    }
  for (size_t size = 0; size < good.size(); size += 37)
    (void)KernelImage::load(good.data(), size);
}
