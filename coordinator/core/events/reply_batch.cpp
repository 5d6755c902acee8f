#include "coordinator/core/events/reply_batch.hpp"

#include <algorithm>
#include <map>

#include "common/wire/embed_batch.hpp"

namespace tessera::coordinator {
namespace {

// Beyond these a message gains nothing from company, and one header must hold all errors.
constexpr std::size_t kBatchBytesMax = 256U << 10;
constexpr std::size_t kItemHeaderBytes = 16;
constexpr std::size_t kErrorHeaderBytes = 256;

struct Gathered {
  std::vector<protocol::EmbedReply> replies;
  std::size_t bytes = 0;
};

std::size_t weight_of(const protocol::ResultBlock& results) {
  return results.payload.size() + kItemHeaderBytes * results.codes.size() +
         kErrorHeaderBytes * results.errors.size();
}

protocol::EmbedReply* reply_of(Action& action) {
  auto* send = std::get_if<SendClient>(&action);
  return send == nullptr ? nullptr : std::get_if<protocol::EmbedReply>(&send->message);
}

void flush(const std::string& peer, Gathered& gathered, Actions& actions) {
  if (gathered.replies.size() == 1) {
    actions.push_back(SendClient{peer, std::move(gathered.replies.front())});
  } else if (!gathered.replies.empty()) {
    actions.push_back(SendClient{peer, protocol::pack(std::move(gathered.replies))});
  }
  gathered = {};
}

}  // namespace

void pack_replies(Actions& actions, const std::function<bool(const std::string&)>& takes_batches) {
  const auto is_reply = [](Action& action) { return reply_of(action) != nullptr; };
  if (std::ranges::count_if(actions, is_reply) < 2) {
    return;
  }
  std::map<std::string, Gathered> by_peer;
  Actions packed;
  packed.reserve(actions.size());
  for (Action& action : actions) {
    protocol::EmbedReply* reply = reply_of(action);
    const std::size_t weight = reply == nullptr ? 0 : weight_of(reply->results);
    if (reply == nullptr || weight > kBatchBytesMax ||
        !takes_batches(std::get<SendClient>(action).peer)) {
      packed.push_back(std::move(action));
      continue;
    }
    const std::string& peer = std::get<SendClient>(action).peer;
    Gathered& gathered = by_peer[peer];
    if (gathered.bytes + weight > kBatchBytesMax ||
        gathered.replies.size() >= protocol::kBatchRequestsMax) {
      flush(peer, gathered, packed);
    }
    gathered.bytes += weight;
    gathered.replies.push_back(std::move(*reply));
  }
  for (auto& [peer, gathered] : by_peer) {
    flush(peer, gathered, packed);
  }
  actions = std::move(packed);
}

}  // namespace tessera::coordinator
