#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "clients/gateway/api/openai_body.hpp"

namespace tessera::gateway {

// A line of the input whose items are in a chunk that is under way: what its answer needs.
struct PlacedLine {
  std::uint64_t number = 0;  // In the input, from 1.
  std::string custom_id;
  std::uint32_t items = 0;
  Dtype dtype = Dtype::kFloat;
  bool base64 = false;
};

// Names lines of the outputs: the same line has the same names each time that it is written. Pure.
class LineNames {
 public:
  explicit LineNames(std::string batch_id) : batch_id_(std::move(batch_id)) {}
  // {"id":"batch_req_...","custom_id":...,"response":{"status_code":N,"request_id":"...","body":
  std::string response_begin(std::uint64_t line, std::string_view custom_id, int status) const;
  static constexpr std::string_view kResponseEnd = "},\"error\":null}\n";
  // The whole line of a request that was not run.
  std::string unrun(std::uint64_t line, std::string_view custom_id, std::string_view code,
                    std::string_view message) const;
  // The whole line of a request that was refused, in the form of the route.
  std::string refused(std::uint64_t line, std::string_view custom_id,
                      const http::Problem& problem) const;

 private:
  std::string name(std::uint64_t line, std::string_view what) const;
  const std::string batch_id_;
};

// The items first..first+count of a checked answer, of which the first has row `first_row`.
protocol::ResultBlock slice_of(const protocol::ResultBlock& results, std::size_t first,
                               std::size_t count, std::size_t first_row);

// How one line ended.
struct LineResult {
  std::string text;  // The line of the output file, or of the error file.
  bool ok = false;
  std::uint64_t tokens = 0;
  std::uint64_t cached_tokens = 0;
};
// `results` are those of the line's own items.
LineResult result_line(const LineNames& names, const PlacedLine& line,
                       protocol::ResultBlock results, const std::string& model);

}  // namespace tessera::gateway
