#include "dshard/Plan/PlanReader.h"

#include "dshard/Support/File.h"

#include <cstring>

namespace dshard::plan {

/// The bytes: a mapping, or a copy in memory.
struct Reader::Storage {
  MappedFile file;
  std::vector<uint8_t> bytes;
};

Reader::~Reader() = default;

std::string_view Reader::string(uint32_t index) const {
  return root->strings()->Get(index)->string_view();
}

Result<std::unique_ptr<Reader>> Reader::open(const std::string &path) {
  std::unique_ptr<Reader> reader(new Reader());
  reader->storage = std::make_unique<Storage>();
  reader->fileName = path;
  Result<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.status();
  reader->storage->file = std::move(*file);
  reader->data = reader->storage->file.data();
  reader->size = reader->storage->file.size();
  if (Status status = reader->check(); !status)
    return Status::error(path + ": " + status.message());
  return Result<std::unique_ptr<Reader>>(std::move(reader));
}

Result<std::unique_ptr<Reader>> Reader::fromBytes(std::vector<uint8_t> bytes,
                                                  std::string name) {
  std::unique_ptr<Reader> reader(new Reader());
  reader->storage = std::make_unique<Storage>();
  reader->fileName = std::move(name);
  reader->storage->bytes = std::move(bytes);
  reader->data = reader->storage->bytes.data();
  reader->size = reader->storage->bytes.size();
  if (Status status = reader->check(); !status)
    return Status::error(reader->fileName + ": " + status.message());
  return Result<std::unique_ptr<Reader>>(std::move(reader));
}

Status Reader::check() {
  auto number = [](uint64_t value) { return std::to_string(value); };
  FileHeader header;
  if (size >= sizeof(fileMagic) &&
      std::memcmp(data, fileMagic, sizeof(fileMagic)) != 0)
    return Status::error("not a plan: it does not begin with 'DSPF'");
  if (size < sizeof(header))
    return Status::error("truncated: a plan's header has " +
                         number(sizeof(header)) + " bytes, the file has " +
                         number(size));
  std::memcpy(&header, data, sizeof(header));
  if (header.version != formatVersion)
    return Status::error("plan format version is " + number(header.version) +
                         ", this program reads version " +
                         number(formatVersion) + ": compile the model again");
  if (header.fileSize > size)
    return Status::error("truncated: the header says " +
                         number(header.fileSize) + " bytes, the file has " +
                         number(size));
  if (header.fileSize < size)
    return Status::error("the header says " + number(header.fileSize) +
                         " bytes, the file has " + number(size) +
                         ": something was appended");
  checksum = computeChecksum(data, size);
  if (checksum != header.checksum)
    return Status::error("checksum differs: the file was altered (" +
                         toString(checksum) + ", the header says " +
                         toString(header.checksum) + ")");
  // Nothing below is wrong in an intact file that this version wrote.
  if (header.metadataOffset != sizeof(header) ||
      header.metadataSize > size - sizeof(header) ||
      header.sectionsOffset % pageSize != 0 ||
      header.sectionsOffset < sizeof(header) + header.metadataSize ||
      header.sectionsOffset > size ||
      header.sectionsSize != size - header.sectionsOffset)
    return Status::error("the header's ranges do not fit the file of " +
                         number(size) + " bytes");
  const uint8_t *metadata = data + header.metadataOffset;
  flatbuffers::Verifier verifier(metadata, header.metadataSize, 64, 1u << 28);
  if (header.metadataSize < 8 || !VerifyPlanBuffer(verifier))
    return Status::error("the metadata is not a well-formed FlatBuffer");
  root = GetPlan(metadata);
  sections = data + header.sectionsOffset;
  return validatePlan(*root, header.sectionsSize);
}

} // namespace dshard::plan
