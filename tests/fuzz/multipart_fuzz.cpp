// Any bytes as a form: what the parser says must not depend on the pieces in which they came, and a
// filename that it gives must come from a head that says so.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "clients/gateway/files/multipart.hpp"
#include "common/check.hpp"

namespace {

using namespace tessera;
using namespace tessera::gateway;

struct Told : MultipartSink {
  Result<void> on_part(MultipartPart part) override {
    CHECK(!open && !part.name.empty());
    open = true;
    text += "part " + part.name + "," + part.filename.value_or("none") + "," + part.content_type;
    return {};
  }
  Result<void> on_data(std::string_view bytes) override {
    CHECK(open && !bytes.empty());
    text += bytes;
    return {};
  }
  Result<void> on_part_end() override {
    CHECK(open);
    open = false;
    text += "end";
    return {};
  }
  std::string text;
  bool open = false;
};

struct Outcome {
  std::string text;
  bool fed = true;
  bool whole = false;
};

Outcome read(std::string_view bytes, std::string_view boundary, std::size_t piece) {
  Told told;
  Outcome outcome;
  MultipartParser parser(boundary, told);
  for (std::size_t at = 0; at < bytes.size() && outcome.fed; at += piece) {
    outcome.fed = parser.feed(bytes.substr(at, piece)).ok();
  }
  outcome.whole = outcome.fed && parser.end().ok();
  CHECK(!outcome.whole || !told.open);
  outcome.text = std::move(told.text);
  return outcome;
}

}  // namespace

// A byte for the size of pieces, a Content-Type up to a line's end, and the body.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::size_t line = bytes.find('\n');
  if (size < 2 || line == std::string_view::npos) {
    return 0;
  }
  const auto boundary = multipart_boundary(bytes.substr(1, std::max<std::size_t>(line, 1) - 1));
  if (boundary) {
    CHECK(!boundary->empty() && boundary->size() <= 70);
  }
  const std::string used = boundary ? *boundary : "b";
  const std::string_view body = bytes.substr(line + 1);
  const Outcome at_once = read(body, used, std::max<std::size_t>(body.size(), 1));
  const Outcome pieces = read(body, used, 1U + data[0] % 64);
  CHECK(at_once.fed == pieces.fed && at_once.whole == pieces.whole);
  CHECK(at_once.text == pieces.text);
  return 0;
}
