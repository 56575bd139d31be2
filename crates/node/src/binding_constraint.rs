use napi_derive::napi;
use tsserve_core::{ConstraintRequest, CoreError, Grammar, Trigger};

/// What an answer must match. `text` is set for schemas, patterns and grammars, `choices` for a choice.
#[napi(object, object_to_js = false)]
#[derive(Debug, Clone)]
pub struct BindingConstraint {
    #[napi(ts_type = "'json_object' | 'json_schema' | 'regex' | 'choice' | 'lark'")]
    pub r#type: String,
    /// A schema as JSON, a regular expression, or a Lark grammar.
    pub text: Option<String>,
    pub choices: Option<Vec<String>>,
    /// With a trigger the grammar applies from one of these tokens or texts on.
    pub trigger_token_ids: Option<Vec<u32>>,
    pub trigger_texts: Option<Vec<String>>,
}

impl TryFrom<BindingConstraint> for ConstraintRequest {
    type Error = CoreError;

    fn try_from(constraint: BindingConstraint) -> Result<Self, CoreError> {
        let BindingConstraint { r#type, text, choices, trigger_token_ids, trigger_texts } = constraint;
        let trigger = match (trigger_token_ids, trigger_texts) {
            (None, None) => None,
            (ids, texts) => Some(Trigger { token_ids: ids.unwrap_or_default(), texts: texts.unwrap_or_default() }),
        };
        let text = text.unwrap_or_default();
        let grammar = match r#type.as_str() {
            "json_object" => Grammar::JsonObject,
            "json_schema" => Grammar::json_schema(&text)?,
            "regex" => Grammar::Regex(text),
            "choice" => Grammar::Choice(choices.unwrap_or_default()),
            "lark" => Grammar::Lark(text),
            other => {
                let message = format!("there is no grammar of type {other:?}");
                return Err(CoreError::Invalid { message, param: Some("constraint") });
            }
        };
        Ok(Self { grammar, trigger })
    }
}
