#pragma once

#include <memory>
#include <string>
#include <vector>

#include "clients/gateway/api/embed_call.hpp"
#include "clients/gateway/encoding/quantise.hpp"
#include "clients/gateway/http/message.hpp"

namespace tessera::gateway {

// How vectors stand in an answer: all rows in one form between two pieces of fixed text. Formats
// other than float16 are made from float32 rows, float16 from float16 ones.
struct VectorSection {
  enum class Form : std::uint8_t {
    kList,    // [0.1,-0.2]
    kBase64,  // "mpmZPQ==", of the little-endian values
    kRaw,     // the little-endian values themselves, without commas between rows
  };
  std::string before;
  Form form = Form::kList;
  Dtype dtype = Dtype::kFloat;
  bool openai_rows = false;  // {"object":"embedding","index":0,"embedding":...}
  std::string after;
};

// Writes each float once, some rows at a time; holds the answer until it is written.
class VectorsBody : public http::BodySource {
 public:
  VectorsBody(EmbedAnswer answer, std::vector<VectorSection> sections);
  State next(std::string& slice) override;
  std::optional<std::uint64_t> size() const override;
  std::size_t held() const override;

 private:
  void append_row(const VectorSection& section, std::size_t item, std::string& out);
  void append_value(const VectorSection& section, std::size_t item, std::string& out);
  // The row's values in the section's format, as bytes. What a list needs it leaves in floats_,
  // signed_ or unsigned_.
  std::span<const std::byte> converted(const VectorSection& section, std::size_t item);

  const EmbedAnswer answer_;
  const std::vector<VectorSection> sections_;
  const std::size_t rows_a_slice_;
  std::size_t section_ = 0;
  std::size_t item_ = 0;
  std::vector<float> floats_;
  std::vector<std::int8_t> signed_;
  std::vector<std::uint8_t> unsigned_;
};

// Puts the body into the response: whole where it is small, else as a source.
void set_vectors(http::Response& response, EmbedAnswer answer, std::vector<VectorSection> sections);

}  // namespace tessera::gateway
