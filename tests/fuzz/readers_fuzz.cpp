// Any bytes, read as a file of any input format, delimiter, quote and encoding, or as .npy, give
// records, errors or one FatalError; ids are what they were in the input.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "clients/cli/io/readers.hpp"
#include "clients/cli/output/npy.hpp"
#include "common/check.hpp"

namespace {

using namespace tessera;

// The first byte says the format, the second, where it is there, how it is read.
cli::ReadOptions options_of(std::uint8_t format, std::uint8_t how) {
  static const char* const kFormats[] = {"txt", "jsonl", "csv", "tsv"};
  // None is judged at random: most files would be refused.
  static const char* const kEncodings[] = {"utf-8", "", "UTF-16LE", "latin1", "utf-8", "utf-8"};
  cli::ReadOptions options{.format = kFormats[format % 5]};
  options.encoding = kEncodings[how % 6];
  if (format % 5 >= 2) {
    options.no_header = (how & 8U) != 0;
    options.field = options.no_header ? "1" : "text";
    options.quote_given = (how & 16U) != 0;
    options.quote = (how & 32U) != 0 ? std::optional('"') : std::nullopt;
    if ((how & 64U) != 0) {
      options.delimiter = ';';
    }
  }
  options.no_ids = (how & 128U) != 0;
  return options;
}

void check(const cli::Record& record, std::string_view bytes, bool plain) {
  CHECK(record.error.code == ErrorCode::kOk || record.text.empty());
  CHECK(record.is_ids || record.ids.empty());
  CHECK(record.place.line >= 1);
  if (record.id.kind == cli::RecordId::Kind::kJson) {
    CHECK(nlohmann::json::accept(record.id.text));
    CHECK(!plain || bytes.find(record.id.text) != std::string_view::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int fd = memfd_create("readers_fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  static const std::atomic<bool> kNoStop{false};
  if (size < 2) {
    return 0;
  }
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  CHECK(ftruncate(fd, 0) == 0);
  CHECK(pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  try {
    if (data[0] % 5 == 4) {
      const cli::NpyMatrix matrix = cli::read_npy(path);
      CHECK(matrix.values.size() == matrix.rows * matrix.columns);
      return 0;
    }
    const cli::ReadOptions options = options_of(data[0], data[1]);
    const auto reader = cli::open_reader(path, options, kNoStop);
    CHECK(reader->description().size() < 2000);
    std::size_t records = 0;
    for (cli::Record record; reader->next(record); ++records) {
      check(record, bytes, options.encoding == "utf-8");
    }
    CHECK(records <= bytes.size());
    CHECK(reader->bytes_read() == bytes.size());
  } catch (const FatalError&) {
  }
  return 0;
}
