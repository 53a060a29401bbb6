#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/io/bitsandbytes_writer.hpp"
#include "ebb/io/json_parser.hpp"
#include "ebb/tensor/format_choice.hpp"

namespace ebb {

/// The object `quantization_config` of a component's config.json, as diffusers and transformers write it for
/// bitsandbytes. Block sizes are not part of it: they stand beside each weight.
struct StoredQuantization {
  FormatChoice::Kind kind = FormatChoice::Kind::nf4;  // nf4, fp4 or int8
  DoubleQuantization nested = DoubleQuantization::off;
  DType compute = DType::f32;          // type that a 4-bit weight is dequantized to for a product
  float outlier_threshold = 6.0f;      // of LLM.int8
  std::vector<std::string> skip = {};  // modules that stay dense, see is_skipped

  bool operator==(const StoredQuantization&) const = default;

  /// From the whole config.json; nothing when it has no quantization_config. `source` names it in messages.
  /// @throws ConfigError for other methods than bitsandbytes and for values of the wrong type
  static std::optional<StoredQuantization> from_config(const Json& config, std::string_view source) {
    const Json* found = config.find("quantization_config");
    if (found == nullptr || found->is_null()) return std::nullopt;
    const Reader reader{*found, source};
    if (!found->object())
      throw ConfigError(concat(source, ": quantization_config: expected an object, found ", found->type_name()));
    if (const std::string method = reader.string("quant_method", "none"); method != "bitsandbytes")
      throw ConfigError(concat(source, ": quantization_config: quant_method ", Json::quoted(method),
                               " is not supported: expected 'bitsandbytes' (nf4, fp4 or LLM.int8)"));
    StoredQuantization result;
    const bool four = reader.flag("load_in_4bit", reader.flag("_load_in_4bit", false));
    const bool eight = reader.flag("load_in_8bit", reader.flag("_load_in_8bit", false));
    if (four == eight)
      throw ConfigError(concat(source, ": quantization_config: expected one of load_in_4bit and load_in_8bit, found ",
                               four ? "both" : "neither"));
    const std::string type = reader.string("bnb_4bit_quant_type", "fp4");
    if (four && type != NF4::name && type != FP4::name)
      throw ConfigError(concat(source, ": quantization_config: bnb_4bit_quant_type: expected 'nf4' or 'fp4', found ",
                               Json::quoted(type)));
    result.kind = eight ? FormatChoice::Kind::int8 : FormatChoice::parse_kind(type);
    if (reader.flag("bnb_4bit_use_double_quant", false)) result.nested = DoubleQuantization::on;
    try {
      result.compute = bitsandbytes::torch_dtype(reader.string("bnb_4bit_compute_dtype", "float32"));
    } catch (const ConfigError& error) {
      throw ConfigError(concat(source, ": quantization_config: bnb_4bit_compute_dtype: ", error.what()));
    }
    result.outlier_threshold = reader.number("llm_int8_threshold", 6.0f);
    result.skip = reader.strings("llm_int8_skip_modules");
    return result;
  }

  /// From a component's config.json. @throws FileError when it cannot be read, ConfigError
  static std::optional<StoredQuantization> from_file(const std::filesystem::path& config) {
    return from_config(JsonParser::parse_file(config), config.string());
  }

  /// All fields that diffusers writes, in its (alphabetical) order. @throws ConfigError when bitsandbytes has no such
  /// format
  Json to_json() const {
    const bool eight = kind == FormatChoice::Kind::int8;
    if (!eight && kind != FormatChoice::Kind::nf4 && kind != FormatChoice::Kind::fp4)
      throw ConfigError(concat("quantization_config: expected nf4, fp4 or int8, which bitsandbytes can store, found ",
                               FormatChoice::names[static_cast<std::size_t>(kind)]));
    Json skipped;
    if (!skip.empty()) skipped = Json(Json::Array(skip.begin(), skip.end()));
    Json::Object fields;
    fields.emplace_back("_load_in_4bit", !eight);
    fields.emplace_back("_load_in_8bit", eight);
    fields.emplace_back("bnb_4bit_compute_dtype", bitsandbytes::torch_name(compute));
    fields.emplace_back("bnb_4bit_quant_storage", "uint8");
    fields.emplace_back("bnb_4bit_quant_type", kind == FormatChoice::Kind::nf4 ? "nf4" : "fp4");
    fields.emplace_back("bnb_4bit_use_double_quant", nested == DoubleQuantization::on);
    fields.emplace_back("llm_int8_enable_fp32_cpu_offload", false);
    fields.emplace_back("llm_int8_has_fp16_weight", false);
    fields.emplace_back("llm_int8_skip_modules", std::move(skipped));
    fields.emplace_back("llm_int8_threshold", static_cast<double>(outlier_threshold));
    fields.emplace_back("load_in_4bit", !eight);
    fields.emplace_back("load_in_8bit", eight);
    fields.emplace_back("quant_method", "bitsandbytes");
    return Json(std::move(fields));
  }

 private:
  /// Typed members of the object; a missing one or null is the default.
  struct Reader {
    const Json& object;
    std::string_view source;

    const Json* member(std::string_view key) const {
      const Json* value = object.find(key);
      return value && !value->is_null() ? value : nullptr;
    }
    [[noreturn]] void fail(std::string_view key, std::string_view expected, const Json& found) const {
      throw ConfigError(
          concat(source, ": quantization_config: ", key, ": expected ", expected, ", found ", found.type_name()));
    }
    bool flag(std::string_view key, bool otherwise) const {
      const Json* value = member(key);
      if (value && !value->boolean()) fail(key, "true or false", *value);
      return value ? *value->boolean() : otherwise;
    }
    std::string string(std::string_view key, std::string_view otherwise) const {
      const Json* value = member(key);
      if (value && !value->string()) fail(key, "a string", *value);
      return value ? *value->string() : std::string(otherwise);
    }
    float number(std::string_view key, float otherwise) const {
      const Json* value = member(key);
      if (value && !value->is_number()) fail(key, "a number", *value);
      return value ? static_cast<float>(value->number(0.0)) : otherwise;
    }
    std::vector<std::string> strings(std::string_view key) const {
      std::vector<std::string> result;
      const Json* value = member(key);
      if (value && !value->array()) fail(key, "an array of strings", *value);
      if (value)
        for (const Json& item : *value->array()) {
          if (!item.string()) fail(key, "an array of strings", item);
          result.push_back(*item.string());
        }
      return result;
    }
  };
};

}  // namespace ebb
