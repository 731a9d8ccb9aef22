//===- KernelImage.cpp - Code of a plan, made executable ------------------===//

#include "dshard/Runtime/Cpu/KernelImage.h"

#include "dshard/Plan/Format.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <elf.h>
#include <sys/mman.h>

using namespace dshard;
using namespace dshard::cpu;

static constexpr uint64_t page = plan::pageSize;
/// More than any plan's code; keeps the arithmetic below from overflowing.
static constexpr uint64_t largestImage = uint64_t{1} << 30;

static Status refuse(const std::string &why) {
  return Status::error("code image of the plan: " + why);
}

/// A dynamic tag that says the image cannot stand alone.
static const char *forbiddenTag(const Elf64_Dyn &entry) {
  switch (entry.d_tag) {
  case DT_NEEDED:
    return "it needs other libraries";
  case DT_RELASZ:
  case DT_RELSZ:
  case DT_RELRSZ:
  case DT_PLTRELSZ:
    return entry.d_un.d_val ? "it has dynamic relocations" : nullptr;
  case DT_TEXTREL:
    return "it has relocations in its code";
  case DT_INIT:
  case DT_FINI:
    return "it has constructors or destructors";
  case DT_INIT_ARRAYSZ:
  case DT_FINI_ARRAYSZ:
  case DT_PREINIT_ARRAYSZ:
    return entry.d_un.d_val ? "it has constructors or destructors" : nullptr;
  default:
    return nullptr;
  }
}

static Status checkDynamic(const uint8_t *data, uint64_t size,
                           const Elf64_Phdr &segment) {
  if (segment.p_offset > size || segment.p_filesz > size - segment.p_offset)
    return refuse("its dynamic section reaches beyond its end");
  for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= segment.p_filesz;
       at += sizeof(Elf64_Dyn)) {
    Elf64_Dyn entry;
    std::memcpy(&entry, data + segment.p_offset + at, sizeof(entry));
    if (entry.d_tag == DT_NULL)
      break;
    if (const char *why = forbiddenTag(entry))
      return refuse(why);
  }
  return Status();
}

Result<std::unique_ptr<KernelImage>> KernelImage::load(const uint8_t *data,
                                                       uint64_t size) {
  Elf64_Ehdr header;
  if (size < sizeof(header) || size > largestImage)
    return refuse("its size is " + std::to_string(size) + " bytes");
  std::memcpy(&header, data, sizeof(header));
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    return refuse("it is not ELF");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64)
    return refuse("it is not for x86-64");
  if (header.e_type != ET_DYN)
    return refuse("it is not a shared object");
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phnum > 64 || header.e_phoff > size ||
      header.e_phnum * sizeof(Elf64_Phdr) > size - header.e_phoff)
    return refuse("its program headers reach beyond its end");
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  std::memcpy(segments.data(), data + header.e_phoff,
              header.e_phnum * sizeof(Elf64_Phdr));
  uint64_t end = 0;
  for (const Elf64_Phdr &segment : segments) {
    if (segment.p_type == PT_TLS)
      return refuse("it has thread-local storage");
    if (segment.p_type == PT_INTERP)
      return refuse("it wants an interpreter");
    if (segment.p_type == PT_DYNAMIC) {
      if (Status status = checkDynamic(data, size, segment); !status)
        return status;
    }
    if (segment.p_type != PT_LOAD)
      continue;
    if (segment.p_offset > size || segment.p_filesz > size - segment.p_offset ||
        segment.p_filesz > segment.p_memsz || segment.p_vaddr > largestImage ||
        segment.p_memsz > largestImage - segment.p_vaddr)
      return refuse("a segment reaches beyond its end");
    if ((segment.p_flags & PF_W) && (segment.p_flags & PF_X))
      return refuse("a segment is writable and executable");
    end = std::max<uint64_t>(end, segment.p_vaddr + segment.p_memsz);
  }
  if (end == 0)
    return refuse("it has no loadable segment");

  std::unique_ptr<KernelImage> image(new KernelImage);
  image->bytes = plan::alignTo(end, page);
  // Protection goes by pages: segments of different rights must not share one.
  std::vector<int> rights(image->bytes / page, 0);
  for (const Elf64_Phdr &segment : segments) {
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0)
      continue;
    int wanted = (segment.p_flags & PF_R ? PROT_READ : 0) |
                 (segment.p_flags & PF_W ? PROT_WRITE : 0) |
                 (segment.p_flags & PF_X ? PROT_EXEC : 0);
    for (uint64_t p = segment.p_vaddr / page;
         p <= (segment.p_vaddr + segment.p_memsz - 1) / page; ++p) {
      if (rights[p] && rights[p] != wanted)
        return refuse("segments of different protection share a page");
      rights[p] = wanted;
    }
  }
  void *memory = mmap(nullptr, image->bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return refuse(std::string("cannot be mapped: ") + std::strerror(errno));
  image->memory = static_cast<uint8_t *>(memory);
  for (const Elf64_Phdr &segment : segments) {
    if (segment.p_type != PT_LOAD)
      continue;
    std::memcpy(image->memory + segment.p_vaddr, data + segment.p_offset,
                segment.p_filesz);
    if (segment.p_flags & PF_X)
      image->code.push_back(
          {segment.p_vaddr, segment.p_vaddr + segment.p_memsz});
  }
  for (uint64_t p = 0; p < rights.size(); ++p)
    if (mprotect(image->memory + p * page, page, rights[p]) != 0)
      return refuse(std::string("cannot be made executable: ") +
                    std::strerror(errno));
  return image;
}

KernelImage::~KernelImage() {
  if (memory)
    munmap(memory, bytes);
}

Result<KernelFunction> KernelImage::function(uint64_t address) const {
  for (const Range &range : code)
    if (address >= range.begin && address < range.end)
      return reinterpret_cast<KernelFunction>(memory + address);
  return refuse("a kernel begins at " + std::to_string(address) +
                ", which is not in its code");
}
