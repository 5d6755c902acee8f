#include "clients/cli/submit/chunker.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "clients/cpp/items.hpp"
#include "common/check.hpp"
#include "common/tokenizer/text/utf8.hpp"

namespace tessera::cli {
namespace {

// Small enough that a window of chunks fits into any memory, large enough for full batches.
constexpr std::size_t kChunkBytesMax = 1U << 20;

// FNV-1a of 64 bits: told apart are honest mistakes, not attacks.
constexpr std::uint64_t kHashStart = 0xCBF29CE484222325ULL;
void mix(std::uint64_t& hash, std::string_view bytes) {
  const auto step = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001B3ULL; };
  std::ranges::for_each(bytes, [&](char c) { step(static_cast<unsigned char>(c)); });
  for (std::size_t length = bytes.size() + 1; length != 0; length >>= 8) {
    step(static_cast<unsigned char>(length & 0xFF));
  }
}

std::size_t bytes_of(const Record& record) {
  return record.is_ids ? record.ids.size() * sizeof(std::int32_t) : record.text.size();
}

// What cannot be told to the coordinator, or written into the ids file, is an error of the record.
void judge(Record& record) {
  if (bytes_of(record) > protocol::kTextBytesMax) {
    record.fail(ErrorCode::kTooLong, "the text is longer than 4 MiB");
  } else if (record.is_ids && record.ids.empty()) {
    record.fail(ErrorCode::kEmptyText, "the list of token ids is empty");
  } else if (record.id.text.find_first_of("\r\n") != std::string::npos) {
    record.fail(ErrorCode::kInvalidArgument, "the id holds a line break");
  } else if (!tokenizer::is_valid_utf8(record.id.text)) {
    record.fail(ErrorCode::kInvalidUtf8, "the id is not valid UTF-8");
  }
}

}  // namespace

Chunker::Chunker(std::unique_ptr<RecordReader> reader, std::size_t items_max)
    : reader_(std::move(reader)), items_max_(items_max) {
  CHECK(items_max_ >= 1 && items_max_ <= protocol::kChunkItemsMax);
}

bool Chunker::next(Chunk& chunk) {
  chunk = {};
  chunk.number = next_number_;
  chunk.first_index = next_index_;
  chunk.hash = kHashStart;
  while (chunk.ids.size() < items_max_) {
    if (!has_waiting_) {
      has_waiting_ = reader_->next(waiting_);
      if (!has_waiting_) {
        break;
      }
      judge(waiting_);
    }
    const std::size_t bytes = bytes_of(waiting_);
    if (!chunk.ids.empty() && chunk.items.payload.size() + bytes > kChunkBytesMax) {
      break;
    }
    add(chunk, waiting_);
    has_waiting_ = false;
  }
  if (chunk.ids.empty()) {
    return false;
  }
  chunk.bytes_end = reader_->bytes_read();
  ++next_number_;
  return true;
}

void Chunker::add(Chunk& chunk, Record& record) {
  const auto place = static_cast<std::uint32_t>(chunk.ids.size());
  mix(chunk.hash, record.id.text);
  if (record.error.code != ErrorCode::kOk) {
    mix(chunk.hash, record.error.message);
    chunk.errors.emplace_back(place, record.error);
    client::append_text(chunk.items, "");
  } else if (record.is_ids) {
    const auto bytes = std::as_bytes(std::span(record.ids));
    mix(chunk.hash, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    client::append_token_ids(chunk.items, record.ids);
  } else {
    mix(chunk.hash, record.text);
    client::append_text(chunk.items, record.text);
  }
  // A record that is broken has no name but its place: its number may be another one's id.
  if (record.id.kind == RecordId::Kind::kNone && record.error.code == ErrorCode::kOk &&
      !reader_->has_ids()) {
    record.id = {RecordId::Kind::kText, std::to_string(next_index_)};
  }
  chunk.ids.push_back(std::move(record.id));
  chunk.places.push_back(record.place);
  ++next_index_;
}

ChunkLog::ChunkLog(const std::string& folder) {
  const std::string path = folder + "/chunks.log";
  std::uint64_t whole_bytes = 0;
  {
    std::ifstream old(path);
    std::string line;
    while (std::getline(old, line) && !old.eof()) {  // A last line without newline is half a line.
      unsigned long long hash = 0;
      unsigned items = 0;
      if (std::sscanf(line.c_str(), "%llx %u", &hash, &items) != 2) {
        throw FatalError(path + " is broken");
      }
      entries_.emplace_back(hash, items);
      whole_bytes += line.size() + 1;
    }
  }
  if (std::filesystem::exists(path)) {
    std::filesystem::resize_file(path, whole_bytes);
  }
  file_.open(path, std::ios::app);
  if (!file_) {
    throw FatalError("cannot write " + path);
  }
}

bool ChunkLog::check(const Chunk& chunk) {
  const std::pair<std::uint64_t, std::uint32_t> entry(chunk.hash,
                                                      static_cast<std::uint32_t>(chunk.ids.size()));
  if (chunk.number < entries_.size()) {
    return entries_[chunk.number] == entry;
  }
  entries_.push_back(entry);
  char line[64];
  std::snprintf(line, sizeof(line), "%016llx %u\n", static_cast<unsigned long long>(entry.first),
                entry.second);
  file_ << line << std::flush;
  if (!file_) {
    throw FatalError("cannot write chunks.log; is the disk full?");
  }
  return true;
}

}  // namespace tessera::cli
