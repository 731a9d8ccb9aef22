//===- Link.cpp - An object file to an image, by lld ----------------------===//

#include "Link.h"
#include "lld/Common/Driver.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/MemoryBuffer.h"

#include <mutex>

LLD_HAS_DRIVER(elf)

using namespace mlir::dshard;
using ::dshard::Status;

/// lld reads and writes files; both are temporary.
static Status runLinker(llvm::ArrayRef<char> object, KernelImage &image) {
  llvm::SmallString<128> input, output;
  int descriptor;
  if (std::error_code code = llvm::sys::fs::createTemporaryFile(
          "dshard-kernels", "o", descriptor, input))
    return Status::error("cannot create a temporary file for kernels: " +
                         code.message());
  llvm::FileRemover removeInput(input);
  {
    llvm::raw_fd_ostream stream(descriptor, /*shouldClose=*/true);
    stream.write(object.data(), object.size());
    stream.close();
    if (stream.has_error()) {
      std::string text = stream.error().message();
      stream.clear_error();
      return Status::error("cannot write " + std::string(input) + ": " + text);
    }
  }
  if (std::error_code code =
          llvm::sys::fs::createTemporaryFile("dshard-kernels", "so", output))
    return Status::error("cannot create a temporary file for kernels: " +
                         code.message());
  llvm::FileRemover removeOutput(output);
  const char *arguments[] = {"ld.lld",
                             "-shared",
                             "-z",
                             "text",
                             "-z",
                             "norelro",
                             "-z",
                             "separate-code",
                             "-z",
                             "max-page-size=4096",
                             "--no-undefined",
                             "--hash-style=sysv",
                             "--build-id=none",
                             "-Bsymbolic",
                             "-s",
                             "--threads=1",
                             "-o",
                             output.c_str(),
                             input.c_str()};
  std::string text;
  llvm::raw_string_ostream messages(text);
  // lld keeps its state in globals.
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  lld::Result result = lld::lldMain(arguments, messages, messages,
                                    {{lld::Gnu, &lld::elf::link}});
  if (result.retCode != 0)
    return Status::error("kernels did not link: " + text);
  auto buffer = llvm::MemoryBuffer::getFile(output, /*IsText=*/false,
                                            /*RequiresNullTerminator=*/false);
  if (!buffer)
    return Status::error("cannot read " + std::string(output) + ": " +
                         buffer.getError().message());
  image.bytes.assign((*buffer)->getBufferStart(), (*buffer)->getBufferEnd());
  return Status();
}

static Status inspect(KernelImage &image, llvm::ArrayRef<std::string> names) {
  auto fail = [](llvm::Error error) {
    return Status::error("the kernels' image is not readable: " +
                         llvm::toString(std::move(error)));
  };
  auto file = llvm::object::ELFFile<llvm::object::ELF64LE>::create(
      llvm::StringRef(image.bytes.data(), image.bytes.size()));
  if (!file)
    return fail(file.takeError());
  auto sections = file->sections();
  if (!sections)
    return fail(sections.takeError());
  for (const auto &section : *sections) {
    using namespace llvm::ELF;
    if ((section.sh_type == SHT_RELA || section.sh_type == SHT_REL) &&
        section.sh_size)
      return Status::error("kernels need dynamic relocations");
    if (section.sh_flags & SHF_TLS)
      return Status::error("kernels need thread-local storage");
    if (section.sh_type == SHT_INIT_ARRAY || section.sh_type == SHT_FINI_ARRAY)
      return Status::error("kernels need constructors");
    if (section.sh_type != SHT_DYNSYM)
      continue;
    auto symbols = file->symbols(&section);
    if (!symbols)
      return fail(symbols.takeError());
    auto strings = file->getStringTableForSymtab(section);
    if (!strings)
      return fail(strings.takeError());
    for (const auto &symbol : *symbols) {
      auto name = symbol.getName(*strings);
      if (!name)
        return fail(name.takeError());
      if (symbol.st_shndx == SHN_UNDEF) {
        if (!name->empty())
          return Status::error("kernels need the symbol '" + name->str() + "'");
        continue;
      }
      image.entries[*name] = symbol.st_value;
    }
  }
  for (const std::string &name : names)
    if (!image.entries.count(name))
      return Status::error("kernel '" + name + "' is not in its image");
  return Status();
}

::dshard::Result<KernelImage>
mlir::dshard::linkImage(llvm::ArrayRef<char> object,
                        llvm::ArrayRef<std::string> names) {
  KernelImage image;
  if (Status status = runLinker(object, image); !status)
    return status;
  if (Status status = inspect(image, names); !status)
    return status;
  return image;
}
