#include "common/wire/protocol.hpp"

#include <iterator>

namespace tessera::protocol {
namespace {

Error wrong(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

}  // namespace

std::string_view name_of(const Message& message) {
  static constexpr std::string_view kNames[] = {
      "Ping",          "Pong",          "ErrorReply",   "ClientHello",   "EmbedRequest",
      "OpenJob",       "SubmitChunk",   "CloseJob",     "ResultAck",     "CancelJob",
      "StatusRequest", "ServerHello",   "EmbedReply",   "JobOpened",     "ChunkAck",
      "ChunkResult",   "JobUpdate",     "StatusReply",  "WorkerHello",   "BatchResult",
      "WorkerGoodbye", "WorkerWelcome", "Batch",        "WorkerMetrics", "MetricsRequest",
      "MetricsReply",  "RecordPut",     "RecordQuery",  "RecordClaim",   "RecordDelete",
      "RecordsReply",  "EmbedRequests", "EmbedReplies", "LeaveJob"};
  static_assert(std::size(kNames) == std::variant_size_v<AnyMessage>);
  return kNames[message.index()];
}

Result<void> validate(const ItemBlock& items) {
  if (items.sizes.empty() || items.sizes.size() > kChunkItemsMax) {
    return wrong("a chunk holds 1 to 4096 items");
  }
  if (!items.kinds.empty() && items.kinds.size() != items.sizes.size()) {
    return wrong("kinds and sizes of the items differ in number");
  }
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < items.sizes.size(); ++i) {
    const std::uint8_t kind = items.kinds.empty() ? 0 : items.kinds[i];
    if (kind > static_cast<std::uint8_t>(ItemKind::kTokenIds)) {
      return wrong("an item is neither text nor token ids");
    }
    if (kind == static_cast<std::uint8_t>(ItemKind::kTokenIds) && items.sizes[i] % 4 != 0) {
      return wrong("token ids are int32, so their bytes must divide by 4");
    }
    if (items.sizes[i] > kTextBytesMax) {
      return wrong("an item is longer than 4 MiB");
    }
    total += items.sizes[i];
  }
  if (total != items.payload.size()) {
    return wrong("the items' sizes do not add up to the payload");
  }
  return {};
}

Message::Message() = default;
Message::Message(const Message& other) = default;
Message::Message(Message&& other) noexcept = default;
Message& Message::operator=(const Message& other) = default;
Message& Message::operator=(Message&& other) noexcept = default;
Message::~Message() = default;

}  // namespace tessera::protocol
