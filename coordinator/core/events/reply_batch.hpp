#pragma once

#include <functional>
#include <string>

#include "coordinator/core/events/events.hpp"

namespace tessera::coordinator {

// Joins the embed replies of one step that go to the same peer into EmbedReplies, where
// `takes_batches(peer)`: the peer sent EmbedRequests before, so it reads them. A large reply stays
// alone. Every reply is kept; they may move behind other messages of the same step.
void pack_replies(Actions& actions, const std::function<bool(const std::string&)>& takes_batches);

}  // namespace tessera::coordinator
