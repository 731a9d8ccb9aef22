#include "dshard/Support/File.h"

#include <algorithm>
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
  struct stat status;
  if (stat(writer.path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    writer.descriptor = ::open(writer.path.c_str(), O_WRONLY | O_CLOEXEC);
    if (writer.descriptor < 0)
      return systemError(writer.path, "create");
    return Result<FileWriter>(std::move(writer));
  }
  writer.temporary = writer.path + ".XXXXXX";
  writer.descriptor = mkostemp(writer.temporary.data(), O_CLOEXEC);
  if (writer.descriptor < 0) {
    writer.temporary.clear();
    return systemError(writer.path, "create");
  }
  return Result<FileWriter>(std::move(writer));
}

Status FileWriter::check(const std::string &path) {
  // Opening a pipe twice would end it for its reader.
  struct stat status;
  if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) &&
      !S_ISDIR(status.st_mode))
    return Status();
  return open(path).status();
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
  if (temporary.empty()) {
    bool done = close(descriptor) == 0;
    descriptor = -1;
    return done ? Status() : systemError(path, "write");
  }
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

Result<InputFile> InputFile::open(const std::string &path) {
  InputFile file;
  file.name = path;
  // Opening a pipe would wait for its writer.
  file.number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status;
  if (file.number < 0 || fstat(file.number, &status) != 0)
    return systemError(path, "open");
  if (!S_ISREG(status.st_mode))
    return Status::error(path + ": cannot open: not a regular file");
  file.byteCount = static_cast<uint64_t>(status.st_size);
  return Result<InputFile>(std::move(file));
}

InputFile &InputFile::operator=(InputFile &&other) noexcept {
  std::swap(name, other.name);
  std::swap(number, other.number);
  std::swap(byteCount, other.byteCount);
  return *this;
}

InputFile::~InputFile() {
  if (number >= 0)
    close(number);
}

/// What one call may read; the system takes less than 2 GiB at a time.
static constexpr uint64_t largestRead = uint64_t{1} << 30;

/// pread that is not interrupted: bytes read, 0 at the end, negative on errors.
static ssize_t readSome(int descriptor, void *to, uint64_t size,
                        uint64_t offset) {
  ssize_t got;
  do
    got = pread(descriptor, to, std::min(size, largestRead),
                static_cast<off_t>(offset));
  while (got < 0 && errno == EINTR);
  return got;
}

Status InputFile::readAt(void *to, uint64_t size, uint64_t offset) const {
  char *next = static_cast<char *>(to);
  while (size) {
    ssize_t got = readSome(number, next, size, offset);
    if (got < 0)
      return systemError(name, "read");
    if (got == 0)
      return Status::error(name + ": cannot read: it ends at byte " +
                           std::to_string(offset));
    next += got;
    offset += static_cast<uint64_t>(got);
    size -= static_cast<uint64_t>(got);
  }
  return Status();
}

Result<std::string> readFile(const std::string &path) {
  Result<InputFile> file = InputFile::open(path);
  if (!file)
    return file.status();
  // The size is a guess: files of /proc have none.
  constexpr uint64_t step = 4096;
  std::string text(file->size() + step, '\0');
  uint64_t done = 0;
  while (true) {
    if (done == text.size())
      text.resize(2 * text.size());
    ssize_t got = readSome(file->descriptor(), text.data() + done,
                           text.size() - done, done);
    if (got < 0)
      return systemError(path, "read");
    if (got == 0)
      break;
    done += static_cast<uint64_t>(got);
  }
  text.resize(done);
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
  Result<InputFile> file = InputFile::open(path);
  if (!file)
    return file.status();
  return mapRange(file->descriptor(), 0, file->size(), path);
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
