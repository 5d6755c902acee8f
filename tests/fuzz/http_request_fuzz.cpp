// Any bytes as a request: what the parser says must not depend on the pieces in which they came.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "clients/gateway/http/request_parser.hpp"
#include "common/check.hpp"

namespace {

using tessera::gateway::http::RequestParser;
using State = RequestParser::State;

struct Outcome {
  State head = State::kNeedMore;
  State body = State::kNeedMore;
  std::size_t used = 0;
  std::string text;
  std::string target;
  bool operator==(const Outcome&) const = default;
};

Outcome read(std::string_view bytes, std::size_t piece) {
  Outcome outcome;
  RequestParser parser({.head_bytes = 2000});
  std::size_t came = 0;
  std::size_t used = 0;
  while (outcome.head == State::kNeedMore && came < bytes.size()) {
    came = std::min(bytes.size(), came + piece);
    outcome.head = parser.read_head(bytes.substr(0, came), used);
  }
  if (outcome.head != State::kDone) {
    return outcome;
  }
  outcome.used = used;
  outcome.target = parser.request().target;
  (void)parse_target(parser.request());
  outcome.body = parser.facts().has_body ? State::kNeedMore : State::kDone;
  while (outcome.body == State::kNeedMore) {
    outcome.body = parser.read_body(bytes.substr(outcome.used, came - outcome.used), used,
                                    outcome.text, 1U << 20);
    outcome.used += used;
    CHECK(outcome.used <= came);
    if (outcome.body == State::kNeedMore && came == bytes.size()) {
      break;
    }
    came = std::min(bytes.size(), came + piece);
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) {
    return 0;
  }
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Outcome whole = read(bytes, bytes.size());
  const Outcome pieces = read(bytes, 1U + data[0]);
  CHECK(whole.head == pieces.head);
  if (whole.head == State::kDone) {
    CHECK(whole.target == pieces.target && whole.body == pieces.body);
    CHECK(whole.body != State::kDone || (whole.text == pieces.text && whole.used == pieces.used));
  }
  return 0;
}
