#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "clients/cli/io/record.hpp"
#include "clients/cli/output/durable_file.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::cli {

enum class OutputFormat : std::uint8_t { kNpy, kJsonLines, kFvecs };

// How much of a job's output is safe on the disk; goes into the manifest.
struct OutputState {
  std::uint64_t rows = 0;          // Vectors, over all shards.
  std::uint64_t vector_bytes = 0;  // Of the shard (npy) or file at hand.
  std::uint64_t id_bytes = 0;
  std::uint64_t error_bytes = 0;
  std::uint64_t cut_bytes = 0;
};

struct OutputOptions {
  std::string folder;
  OutputFormat format = OutputFormat::kNpy;
  protocol::VectorType type = protocol::VectorType::kFloat32;
  std::uint64_t shard_rows = 1U << 18;  // npy only; jsonl and fvecs are one file each.
  std::vector<std::string> inputs{};    // Names of the files that items come from.
};

// Writes vectors, ids and errors in the order of the calls. npy: vectors-00000.npy, ... of
// shard_rows rows each and ids.txt; fvecs: vectors.fvecs and ids.txt; jsonl: vectors.jsonl with id,
// index and vector in each line. Items without a vector have no row: they are in errors.jsonl;
// those that truncation shortened are in truncated.jsonl, too.
// Throws FatalError when the disk is full or a file of an earlier run is missing.
class VectorWriter {
 public:
  // Continues at `state`: whatever was written behind it is cut off.
  VectorWriter(OutputOptions options, const OutputState& state);

  // `values`: `columns` values of options.type. The id must hold no line break.
  void add_vector(const RecordId& id, std::uint64_t index, std::span<const std::byte> values,
                  std::uint32_t columns);
  // `place`: where the item stands in the inputs.
  void add_error(const RecordId& id, std::uint64_t index, RecordPlace place, const Error& error);
  // Truncation took `tokens` tokens from the item; it has its vector all the same.
  void add_cut(const RecordId& id, std::uint64_t index, std::uint32_t tokens);

  // Makes everything safe and returns the state to continue from.
  OutputState sync();

  std::string vectors_name() const;  // "vectors-*.npy", for people

 private:
  std::string shard_path(std::uint64_t shard) const;
  void open_shard(std::uint64_t shard, std::uint64_t keep_bytes);
  void sync_vectors();
  void add_npy_row(std::span<const std::byte> values, std::uint32_t columns);

  OutputOptions options_;
  OutputState state_;
  std::uint32_t columns_ = 0;
  std::unique_ptr<DurableFile> vectors_;
  std::unique_ptr<DurableFile> ids_;  // None for jsonl.
  DurableFile errors_;
  DurableFile cut_;
};

}  // namespace tessera::cli
