// Any bytes, read as a file of any input format or as .npy, give records, errors or one FatalError.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "clients/cli/io/npy.hpp"
#include "clients/cli/io/readers.hpp"
#include "common/check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tessera;
  static const int fd = memfd_create("readers_fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  static const std::atomic<bool> kNoStop{false};
  if (size == 0) {
    return 0;
  }
  CHECK(ftruncate(fd, 0) == 0);
  CHECK(pwrite(fd, data + 1, size - 1, 0) == static_cast<ssize_t>(size - 1));
  static const char* const kFormats[] = {"txt", "jsonl", "csv", "tsv", "npy"};
  const std::string format = kFormats[data[0] % 5];
  try {
    if (format == "npy") {
      const cli::NpyMatrix matrix = cli::read_npy(path);
      CHECK(matrix.values.size() == matrix.rows * matrix.columns);
      return 0;
    }
    const auto reader = cli::open_reader(path, {.format = format}, kNoStop);
    std::size_t records = 0;
    for (cli::Record record; reader->next(record); ++records) {
      CHECK(record.error.code == ErrorCode::kOk || record.text.empty());
      CHECK(record.is_ids || record.ids.empty());
    }
    CHECK(records <= size);
    CHECK(reader->bytes_read() == size - 1);
  } catch (const FatalError&) {
  }
  return 0;
}
