#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>

#include "clients/gateway/api/embed_call.hpp"
#include "clients/gateway/api/json.hpp"
#include "clients/gateway/api/services.hpp"

namespace tessera::gateway {

// What the routes' bodies have in common.

// Adds a string, a list of strings, a list of token ids or a list of such lists.
Result<void> read_items(JsonValue& value, std::size_t items_max, ItemList& items);
// A list of strings only.
Result<void> read_texts(JsonValue& value, std::size_t items_max, ItemList& items);

// Null counts as not there: official clients send it for what the user left out.
Result<bool> is_null(JsonValue& value);
Result<std::uint32_t> read_dimensions(JsonValue& value);
// true/false (right/none), or "NONE", "START"/"left" (the beginning is cut), "END"/"right".
Result<protocol::Truncate> read_truncate(JsonValue& value);

// An error about one field: param, and the message "field: sentence".
http::Problem field_problem(std::string_view field, const Error& error);

// Reads the body's fields in one pass, small bodies at once and large ones on the side thread, and
// calls `done` on the loop's thread. `field` gets each name and value; its error is told with the
// field's name. `T` is what is read; it must not refer to the loop's things.
template <typename T>
using ReadDone = std::function<void(std::variant<T, http::Problem>)>;

// The untyped half: runs `read` where its time does not matter, then `done` on the loop's thread.
void run_reading(Services& services, std::size_t body_bytes, std::function<void()> read,
                 std::function<void()> done);
// Calls `field` for each field of the request's body; nothing when all is well.
std::optional<http::Problem> read_fields(std::string& body, const JsonValue::EachField& field);
// The same for a body that is a value of a larger document.
std::optional<http::Problem> read_fields(JsonValue& body, const JsonValue::EachField& field);

// The model that the name means: a 404 in words of the wire when it is not served, 503 before the
// coordinator has said what is.
std::variant<protocol::ModelInfo, http::Problem> find_model(const Services& services,
                                                            const std::string& name);

// Whether token ids in the call are of the model's vocabulary, by the client's word or the
// server's; they cannot be told from another tokenizer's by looking at them.
std::optional<http::Problem> check_vocabulary(bool accept_token_ids, const EmbedCall& call,
                                              const protocol::ModelInfo& model,
                                              const std::string& vocabulary);

// Cache-Control of the request: no-cache, no-store.
void read_cache_control(const http::Request& request, EmbedCall& call);

// X-Cache, x-ratelimit-*, openai-processing-ms, x-tessera-truncated.
void add_answer_headers(const EmbedAnswer& answer, const http::Request& request,
                        http::Response& response);

}  // namespace tessera::gateway
