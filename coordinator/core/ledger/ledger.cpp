#include "coordinator/core/ledger/ledger.hpp"

#include <sodium.h>

#include <cstring>

#include "common/check.hpp"
#include "common/wire/codec.hpp"

namespace tessera::coordinator::ledger {
namespace {

constexpr std::size_t kJobIdBytes = 16;

protocol::Bytes join(const protocol::Frames& frames, std::span<const std::byte> payload) {
  const auto header_bytes = static_cast<std::uint32_t>(frames.header.size());
  protocol::Bytes content(sizeof(header_bytes) + header_bytes + payload.size());
  std::memcpy(content.data(), &header_bytes, sizeof(header_bytes));
  std::memcpy(content.data() + sizeof(header_bytes), frames.header.data(), header_bytes);
  if (!payload.empty()) {
    std::memcpy(content.data() + sizeof(header_bytes) + header_bytes, payload.data(),
                payload.size());
  }
  return content;
}

template <typename M>
Result<M> read(std::span<const std::byte> content) {
  std::uint32_t header_bytes = 0;
  if (content.size() < sizeof(header_bytes)) {
    return Error{ErrorCode::kInternal, "a ledger entry is too short"};
  }
  std::memcpy(&header_bytes, content.data(), sizeof(header_bytes));
  const auto rest = content.subspan(sizeof(header_bytes));
  if (header_bytes > rest.size()) {
    return Error{ErrorCode::kInternal, "a ledger entry is cut off"};
  }
  const auto payload = rest.subspan(header_bytes);
  auto message =
      protocol::decode(rest.first(header_bytes), protocol::Bytes(payload.begin(), payload.end()));
  if (!message) {
    return message.error();
  }
  M* wanted = std::get_if<M>(&*message);
  if (wanted == nullptr) {
    return Error{ErrorCode::kInternal, "a ledger entry is of another kind"};
  }
  return std::move(*wanted);
}

}  // namespace

JobId job_id_of(std::string_view tenant, std::string_view job_key) {
  CHECK(sodium_init() >= 0);
  const std::uint64_t tenant_bytes = tenant.size();
  crypto_generichash_state state;
  crypto_generichash_init(&state, nullptr, 0, kJobIdBytes);
  const auto absorb = [&](const void* data, std::size_t bytes) {
    crypto_generichash_update(&state, static_cast<const unsigned char*>(data), bytes);
  };
  absorb(&tenant_bytes, sizeof(tenant_bytes));
  absorb(tenant.data(), tenant.size());
  absorb(job_key.data(), job_key.size());
  unsigned char digest[kJobIdBytes];
  crypto_generichash_final(&state, digest, sizeof(digest));
  char hex[2 * kJobIdBytes + 1];
  sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
  return hex;
}

std::string encode_spec(const protocol::EmbedSpec& spec, std::uint32_t chunk_items) {
  const protocol::OpenJob open{
      .request_id = 0, .job_key = {}, .spec = spec, .chunk_items = chunk_items};
  const protocol::Bytes bytes = join(protocol::encode(open), {});
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<JobSpec> decode_spec(std::string_view bytes) {
  auto open = read<protocol::OpenJob>(std::as_bytes(std::span(bytes)));
  if (!open) {
    return open.error();
  }
  return JobSpec{.embed = std::move(open->spec), .chunk_items = open->chunk_items};
}

protocol::Bytes journal_chunk(const protocol::SubmitChunk& chunk) {
  const protocol::SubmitChunk head{
      .job_id = chunk.job_id,
      .chunk = chunk.chunk,
      .items = {.sizes = chunk.items.sizes, .kinds = chunk.items.kinds, .payload = {}}};
  return join(protocol::encode(head), chunk.items.payload);
}

Result<protocol::SubmitChunk> read_chunk(std::span<const std::byte> content) {
  auto chunk = read<protocol::SubmitChunk>(content);
  if (chunk) {
    if (auto valid = protocol::validate(chunk->items); !valid) {
      return valid.error();
    }
  }
  return chunk;
}

protocol::Bytes journal_result(const protocol::ChunkResult& result) {
  protocol::ChunkResult head{.job_id = result.job_id, .chunk = result.chunk, .results = {}};
  head.results = {.codes = result.results.codes,
                  .token_counts = result.results.token_counts,
                  .tokens_cut = result.results.tokens_cut,
                  .errors = result.results.errors,
                  .dimensions = result.results.dimensions,
                  .vector_type = result.results.vector_type,
                  .cache_hits = result.results.cache_hits,
                  .cache_joins = result.results.cache_joins,
                  .cache_misses = result.results.cache_misses,
                  .payload = {},
                  .sources = result.results.sources};
  return join(protocol::encode(std::move(head)), result.results.payload);
}

Result<protocol::ChunkResult> read_result(std::span<const std::byte> content) {
  return read<protocol::ChunkResult>(content);
}

}  // namespace tessera::coordinator::ledger
