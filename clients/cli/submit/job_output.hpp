#pragma once

#include <optional>
#include <string>

#include "clients/cli/output/vector_writer.hpp"
#include "clients/cli/submit/ahead_store.hpp"
#include "clients/cli/submit/chunker.hpp"
#include "clients/cli/submit/manifest.hpp"

namespace tessera::cli {

// The folder of a job: output files, manifest, and results that wait for their turn. Chunks are
// written in the order of the input. One thread; throws FatalError when the disk fails.
class JobOutput {
 public:
  // Continues what `manifest` describes.
  JobOutput(OutputOptions options, Manifest& manifest);

  // The next chunk of the input; CHECKs that it is the next.
  void write(const Chunk& chunk, const protocol::ResultBlock& results);
  // Makes all written chunks safe, then says so in the manifest.
  void commit();

  AheadStore& ahead() { return ahead_; }
  std::uint64_t tokens() const { return tokens_; }  // Of this run.

 private:
  void write_item(const Chunk& chunk, std::uint32_t place, const protocol::ResultBlock& results,
                  std::size_t& row);

  std::string folder_;
  Manifest& manifest_;
  VectorWriter writer_;
  AheadStore ahead_;
  std::uint64_t tokens_ = 0;
};

}  // namespace tessera::cli
