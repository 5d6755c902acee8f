#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "clients/gateway/batches/batch_record.hpp"
#include "clients/gateway/http/message.hpp"

namespace tessera::gateway {

// Seconds of "24h"; also, as an extension, whole "s", "m", "h" or "d" up to 30 days.
std::optional<std::int64_t> window_seconds(std::string_view window);

// The body of POST /v1/batches as the record that it makes, but for its id, times and tenant.
// `body` keeps its contents. Pure.
std::variant<BatchRecord, http::Problem> read_batch_request(std::string& body);

// {"object":"list","data":[...],"first_id","last_id","has_more"}
std::string batch_list_json(const std::vector<BatchRecord>& batches, bool more);

}  // namespace tessera::gateway
