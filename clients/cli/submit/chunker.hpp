#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "clients/cli/io/record.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::cli {

// A run of records that travels as one chunk. Records with an error of their own take part as empty
// texts, so that item i of the answer is always record i; their own error is the one that counts.
struct Chunk {
  std::uint64_t number = 0;
  std::uint64_t first_index = 0;  // Of its first record in the whole input.
  protocol::ItemBlock items;
  std::vector<RecordId> ids;  // The record's own; its index where the input names none.
  std::vector<RecordPlace> places;
  std::vector<std::pair<std::uint32_t, Error>> errors;  // Of records that could not be sent.
  std::uint64_t hash = 0;       // Of ids, texts and errors: tells another input from this one.
  std::uint64_t bytes_end = 0;  // Input bytes up to its end.
};

// Cuts records into chunks; the same records give the same chunks in every run.
class Chunker {
 public:
  Chunker(std::unique_ptr<RecordReader> reader, std::size_t items_max);

  // False at the end of the input.
  bool next(Chunk& chunk);

 private:
  void add(Chunk& chunk, Record& record);

  std::unique_ptr<RecordReader> reader_;
  std::size_t items_max_;
  std::uint64_t next_number_ = 0;
  std::uint64_t next_index_ = 0;
  Record waiting_;  // Did not fit into the last chunk.
  bool has_waiting_ = false;
};

// The hashes of all chunks that were ever cut for a folder, in its file chunks.log: how another
// input is told from the one that the folder was begun with.
class ChunkLog {
 public:
  explicit ChunkLog(const std::string& folder);

  // True when this chunk is new, or the same as in earlier runs. A new one is written down.
  bool check(const Chunk& chunk);
  std::uint64_t size() const { return entries_.size(); }

 private:
  std::vector<std::pair<std::uint64_t, std::uint32_t>> entries_;  // hash, items
  std::ofstream file_;
};

}  // namespace tessera::cli
