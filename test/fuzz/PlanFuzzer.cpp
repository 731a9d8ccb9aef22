//===- PlanFuzzer.cpp - The plan loader, the verifier, the printers -------===//
//
// A plan's checksum guards against damage, so nothing would get past it: it is
// made right before each run, as are magic, version and size. What is read,
// verified and printed then is metadata that no compiler wrote.
//
//===----------------------------------------------------------------------===//

#include "Fuzzer.h"
#include "dshard/Plan/Format.h"
#include "dshard/Plan/PlanPrinter.h"
#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/PlanReport.h"
#include "dshard/Plan/PlanVerifier.h"

#include <cstring>
#include <vector>

using namespace dshard;
using namespace dshard::plan;

static void repairHeader(std::vector<uint8_t> &bytes) {
  FileHeader header;
  if (bytes.size() < sizeof(header))
    return;
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::memcpy(&header, fileMagic, sizeof(fileMagic));
  header.version = formatVersion;
  header.fileSize = bytes.size();
  header.metadataOffset = sizeof(header);
  if (header.sectionsOffset > bytes.size() ||
      header.sectionsOffset % pageSize != 0)
    header.sectionsOffset = bytes.size() / pageSize * pageSize;
  header.sectionsSize = bytes.size() - header.sectionsOffset;
  if (header.metadataSize > header.sectionsOffset)
    header.metadataSize = header.sectionsOffset - sizeof(header);
  std::memcpy(bytes.data(), &header, sizeof(header));
  header.checksum = computeChecksum(bytes.data(), bytes.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::vector<uint8_t> bytes(data, data + size);
  repairHeader(bytes);
  auto reader = Reader::fromBytes(std::move(bytes), "fuzz.dsplan");
  if (!reader)
    return 0;
  // As dshard-plan does: whatever loads can be looked at, verified or not.
  const Plan &plan = (*reader)->plan();
  (void)printPlan(plan);
  (void)statisticsText(**reader);
  (void)statisticsJson(**reader);
  (void)explainCollectives(**reader);
  (void)verifyPlan(plan);
  return 0;
}

/// Words are what a FlatBuffer is made of: numbers, and offsets to others.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size,
                                          size_t maxSize, unsigned seed) {
  fuzz::Random random(seed);
  if (size < 128 || fuzz::below(random, 8) == 0)
    return LLVMFuzzerMutate(data, size, maxSize);
  // The metadata lie behind the header; what follows is code.
  FileHeader header;
  std::memcpy(&header, data, sizeof(header));
  size_t end = sizeof(header) + header.metadataSize;
  if (end <= sizeof(header) + 8 || end > size)
    end = size;
  for (size_t i = fuzz::below(random, 4) + 1; i-- > 0;) {
    size_t width = size_t{1} << fuzz::below(random, 4);
    size_t at = sizeof(header) +
                fuzz::below(random, (end - sizeof(header)) / width) * width;
    uint64_t value = 0;
    std::memcpy(&value, data + at, width);
    switch (fuzz::below(random, 4)) {
    case 0:
      value = static_cast<uint64_t>(fuzz::interestingNumber(random));
      break;
    case 1:
      value += fuzz::below(random, 9) - 4;
      break;
    case 2:
      value ^= uint64_t{1} << fuzz::below(random, 8 * width);
      break;
    case 3:
      std::memcpy(&value,
                  data + sizeof(header) +
                      fuzz::below(random, (end - sizeof(header)) / width) *
                          width,
                  width);
      break;
    }
    std::memcpy(data + at, &value, width);
  }
  return size;
}
