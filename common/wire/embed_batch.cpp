#include "common/wire/embed_batch.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tessera::protocol {
namespace {

Bytes& payload_of(EmbedRequest& request) { return request.items.payload; }
Bytes& payload_of(EmbedReply& reply) { return reply.results.payload; }

std::uint64_t bytes_of(const EmbedRequest& request) {
  return std::accumulate(request.items.sizes.begin(), request.items.sizes.end(), std::uint64_t{0});
}
std::uint64_t bytes_of(const EmbedReply& reply) {
  return static_cast<std::uint64_t>(std::ranges::count(reply.results.codes, 0)) *
         row_bytes(reply.results);
}

template <typename T>
Bytes join(std::vector<T>& parts) {
  if (parts.size() == 1) {
    return std::exchange(payload_of(parts.front()), {});
  }
  Bytes all;
  std::size_t total = 0;
  for (T& part : parts) {
    total += payload_of(part).size();
  }
  CHECK(total <= kPayloadBytesMax);
  all.reserve(total);
  for (T& part : parts) {
    const Bytes bytes = std::exchange(payload_of(part), {});
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

template <typename T>
Result<std::vector<T>> divide(std::vector<T> parts, Bytes payload) {
  if (parts.empty() || parts.size() > kBatchRequestsMax) {
    return Error{ErrorCode::kInvalidArgument, "a message carries 1 to 256 requests"};
  }
  std::uint64_t at = 0;
  for (T& part : parts) {
    const std::uint64_t bytes = bytes_of(part);
    if (bytes > payload.size() - at) {
      return Error{ErrorCode::kInvalidArgument, "the requests do not fit the message's payload"};
    }
    const auto first = payload.begin() + static_cast<std::ptrdiff_t>(at);
    payload_of(part).assign(first, first + static_cast<std::ptrdiff_t>(bytes));
    at += bytes;
  }
  if (at != payload.size()) {
    return Error{ErrorCode::kInvalidArgument, "the requests do not fill the message's payload"};
  }
  return parts;
}

}  // namespace

std::size_t row_bytes(const ResultBlock& results) {
  return std::size_t{results.dimensions} * (results.vector_type == VectorType::kFloat16 ? 2 : 4);
}

EmbedRequests pack(std::vector<EmbedRequest> requests) {
  CHECK(!requests.empty() && requests.size() <= kBatchRequestsMax);
  EmbedRequests batch;
  batch.payload = join(requests);
  batch.requests = std::move(requests);
  return batch;
}

Result<std::vector<EmbedRequest>> unpack(EmbedRequests batch) {
  return divide(std::move(batch.requests), std::move(batch.payload));
}

EmbedReplies pack(std::vector<EmbedReply> replies) {
  CHECK(!replies.empty() && replies.size() <= kBatchRequestsMax);
  EmbedReplies batch;
  batch.payload = join(replies);
  batch.replies = std::move(replies);
  return batch;
}

Result<std::vector<EmbedReply>> unpack(EmbedReplies batch) {
  return divide(std::move(batch.replies), std::move(batch.payload));
}

}  // namespace tessera::protocol
