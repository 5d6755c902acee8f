#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "clients/cli/output/vector_writer.hpp"

namespace tessera::cli {

// What a folder of `tessera submit` knows of its job; manifest.json in that folder. It is written
// after the output has been synced and before the coordinator is told so: a chunk counted here is
// safe, and no chunk was given up that is not counted here.
struct Manifest {
  std::string settings;  // JSON of everything that decides the output; equal in every run.
  std::string job_key;
  // First chunk of the job with this key. Above 0 when an earlier job was cancelled or forgotten:
  // the rest then runs as a new job whose chunk 0 is our chunk `base_chunk`.
  std::uint64_t base_chunk = 0;
  std::uint64_t base_items = 0;  // Items in the chunks before it.
  std::string fingerprint;       // Of the model that made the vectors; empty until known.
  std::uint64_t written_chunks = 0;
  std::uint64_t items = 0;  // In the written chunks: vectors and errors.
  std::uint64_t errors = 0;
  std::uint64_t cut = 0;
  std::uint64_t tokens = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_joins = 0;
  std::uint64_t cache_misses = 0;
  OutputState output;
  bool finished = false;

  // Nothing when the folder has none; throws FatalError when it cannot be read.
  static std::optional<Manifest> load(const std::string& folder);
  void save(const std::string& folder) const;
  std::string to_json() const;
};

// "cli-" and 128 random bits in hex.
std::string make_job_key();

}  // namespace tessera::cli
