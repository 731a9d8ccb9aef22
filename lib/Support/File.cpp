#include "dshard/Support/File.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace dshard {

static Status systemError(const std::string &path, const char *what) {
  return Status::error(path + ": cannot " + what + ": " + std::strerror(errno));
}

//===----------------------------------------------------------------------===//
// FileWriter
//===----------------------------------------------------------------------===//

Result<FileWriter> FileWriter::open(std::string path) {
  FileWriter writer;
  writer.path = std::move(path);
  writer.temporary = writer.path + ".XXXXXX";
  writer.descriptor = mkostemp(writer.temporary.data(), O_CLOEXEC);
  if (writer.descriptor < 0) {
    writer.temporary.clear();
    return systemError(writer.path, "create");
  }
  return Result<FileWriter>(std::move(writer));
}

FileWriter::FileWriter(FileWriter &&other) noexcept {
  *this = std::move(other);
}

FileWriter &FileWriter::operator=(FileWriter &&other) noexcept {
  std::swap(path, other.path);
  std::swap(temporary, other.temporary);
  std::swap(descriptor, other.descriptor);
  return *this;
}

FileWriter::~FileWriter() {
  if (descriptor >= 0)
    close(descriptor);
  if (!temporary.empty())
    unlink(temporary.c_str());
}

Status FileWriter::write(const void *data, uint64_t size) {
  const char *bytes = static_cast<const char *>(data);
  while (size) {
    ssize_t written = ::write(descriptor, bytes, size);
    if (written < 0 && errno == EINTR)
      continue;
    if (written < 0)
      return systemError(path, "write");
    bytes += written;
    size -= static_cast<uint64_t>(written);
  }
  return Status();
}

Status FileWriter::commit() {
  // mkstemp makes private files; give them what open() would have.
  mode_t mask = umask(0);
  umask(mask);
  bool done = fchmod(descriptor, 0666 & ~mask) == 0;
  done &= close(descriptor) == 0;
  descriptor = -1;
  if (!done || rename(temporary.c_str(), path.c_str()) != 0)
    return systemError(path, "write");
  temporary.clear();
  return Status();
}

Status writeFile(const std::string &path, const void *data, uint64_t size) {
  Result<FileWriter> writer = FileWriter::open(path);
  if (!writer)
    return writer.status();
  if (Status status = writer->write(data, size); !status)
    return status;
  return writer->commit();
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

namespace {
struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0)
      close(number);
  }
};
} // namespace

/// Opens a regular file and finds its size.
static Status openForReading(const std::string &path, Descriptor &file,
                             uint64_t &size) {
  file.number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (file.number < 0 || fstat(file.number, &status) != 0)
    return systemError(path, "open");
  if (!S_ISREG(status.st_mode))
    return Status::error(path + ": cannot open: not a regular file");
  size = static_cast<uint64_t>(status.st_size);
  return Status();
}

Result<std::string> readFile(const std::string &path) {
  Descriptor file{-1};
  uint64_t size = 0;
  if (Status status = openForReading(path, file, size); !status)
    return Result<std::string>(status);
  std::string text(size, '\0');
  for (uint64_t done = 0; done < size;) {
    ssize_t got = read(file.number, text.data() + done, size - done);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return Result<std::string>(systemError(path, "read"));
    if (got == 0)
      return Result<std::string>(
          Status::error(path + ": became shorter while it was read"));
    done += static_cast<uint64_t>(got);
  }
  return Result<std::string>(std::move(text));
}

Result<MappedFile> MappedFile::mapRange(int descriptor, uint64_t offset,
                                        uint64_t size,
                                        const std::string &name) {
  MappedFile file;
  if (size == 0)
    return Result<MappedFile>(std::move(file));
  uint64_t lead = offset % static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  void *mapping = mmap(nullptr, size + lead, PROT_READ, MAP_PRIVATE, descriptor,
                       static_cast<off_t>(offset - lead));
  if (mapping == MAP_FAILED)
    return systemError(name, "map");
  file.mapping = mapping;
  file.mappedSize = size + lead;
  file.bytes = static_cast<const uint8_t *>(mapping) + lead;
  file.byteCount = size;
  return Result<MappedFile>(std::move(file));
}

Result<MappedFile> MappedFile::open(const std::string &path) {
  Descriptor file{-1};
  uint64_t size = 0;
  if (Status status = openForReading(path, file, size); !status)
    return status;
  return mapRange(file.number, 0, size, path);
}

MappedFile &MappedFile::operator=(MappedFile &&other) noexcept {
  std::swap(bytes, other.bytes);
  std::swap(byteCount, other.byteCount);
  std::swap(mapping, other.mapping);
  std::swap(mappedSize, other.mappedSize);
  return *this;
}

MappedFile::~MappedFile() {
  if (mapping)
    munmap(mapping, mappedSize);
}

} // namespace dshard
