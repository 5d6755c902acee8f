#include "clients/cli/submit/job_output.hpp"

#include <algorithm>
#include <span>

#include "clients/cpp/items.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

// Our own finding about a record, else the coordinator's about the item.
Error error_of(const Chunk& chunk, std::uint32_t place, const protocol::ResultBlock& results) {
  for (const auto& [at, error] : chunk.errors) {
    if (at == place) {
      return error;
    }
  }
  Error error{static_cast<ErrorCode>(results.codes[place]), ""};
  for (const protocol::ItemError& item : results.errors) {
    if (item.index == place) {
      error.message = item.message;
    }
  }
  return error;
}

}  // namespace

JobOutput::JobOutput(OutputOptions options, Manifest& manifest)
    : folder_(options.folder),
      manifest_(manifest),
      writer_(std::move(options), manifest.output),
      ahead_(folder_, manifest.written_chunks) {}

void JobOutput::write(const Chunk& chunk, const protocol::ResultBlock& results) {
  CHECK(chunk.number == manifest_.written_chunks);
  if (auto fits = client::check_results(results, chunk.ids.size()); !fits) {
    throw FatalError(fits.error().message);
  }
  std::size_t row = 0;
  for (std::uint32_t place = 0; place < chunk.ids.size(); ++place) {
    write_item(chunk, place, results, row);
  }
  ++manifest_.written_chunks;
  manifest_.items += chunk.ids.size();
  manifest_.cache_hits += results.cache_hits;
  manifest_.cache_joins += results.cache_joins;
  manifest_.cache_misses += results.cache_misses;
}

void JobOutput::write_item(const Chunk& chunk, std::uint32_t place,
                           const protocol::ResultBlock& results, std::size_t& row) {
  const RecordId& id = chunk.ids[place];
  const std::uint64_t index = chunk.first_index + place;
  const std::uint32_t tokens = results.token_counts.empty() ? 0 : results.token_counts[place];
  manifest_.tokens += tokens;
  tokens_ += tokens;
  if (results.codes[place] != 0) {
    writer_.add_error(id, index, chunk.places[place], error_of(chunk, place, results));
    ++manifest_.errors;
    return;
  }
  const std::size_t row_bytes =
      results.dimensions * (results.vector_type == protocol::VectorType::kFloat16 ? 2U : 4U);
  writer_.add_vector(id, index, std::span(results.payload).subspan(row++ * row_bytes, row_bytes),
                     results.dimensions);
  const std::uint32_t cut = results.tokens_cut.empty() ? 0 : results.tokens_cut[place];
  if (cut > 0) {
    writer_.add_cut(id, index, cut);
    ++manifest_.cut;
  }
}

void JobOutput::commit() {
  manifest_.output = writer_.sync();
  manifest_.save(folder_);
  ahead_.remove_below(manifest_.written_chunks);
}

}  // namespace tessera::cli
