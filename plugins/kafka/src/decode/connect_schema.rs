//! Schemas as Kafka Connect's JSON converter prints them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::Refusal;
use super::column::ColumnSpec;
use super::kind::{Kind, Member};
use super::logical::{self, Dialect};

/// A schema, of a field of a struct too.
#[derive(Debug, Deserialize)]
pub(super) struct ConnectSchema<'a> {
    #[serde(borrow, rename = "type")]
    base: Cow<'a, str>,
    /// The name of its logical type.
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parameters: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    /// The name of the struct's field, where it is one.
    #[serde(borrow, default)]
    field: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    fields: Option<Vec<Self>>,
    #[serde(borrow, default)]
    items: Option<Box<Self>>,
    #[serde(borrow, default)]
    keys: Option<Box<Self>>,
    #[serde(borrow, default)]
    values: Option<Box<Self>>,
}

impl<'a> ConnectSchema<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Refusal> {
        serde_json::from_str(text)
            .map_err(|_| Refusal::new("its `schema` is no schema of Kafka Connect's JSON converter"))
    }

    /// A field of a struct.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.fields.iter().flatten().find(|field| field.field.as_deref() == Some(name))
    }

    /// The names of a struct's fields.
    pub(super) fn field_names(&self) -> Vec<String> {
        self.fields.iter().flatten().filter_map(|field| field.field.as_deref().map(str::to_owned)).collect()
    }

    /// The columns that a struct's fields are.
    pub(super) fn columns(&self, dialect: Dialect) -> Result<Vec<ColumnSpec>, Refusal> {
        let members = self.members(dialect)?;
        Ok(members.into_iter().map(|member| ColumnSpec::told(&member.name, member.kind, member.source_type)).collect())
    }

    fn members(&self, dialect: Dialect) -> Result<Vec<Member>, Refusal> {
        if self.base != "struct" {
            return Err(Refusal::said(format!("a struct was expected in its schema, and is a {}", self.base)));
        }
        let fields = self.fields.as_deref().unwrap_or_default();
        let member = |field: &Self| {
            let name = field.field.as_deref().ok_or(Refusal::new("a field of a struct in its schema has no name"))?;
            let kind = field.kind(dialect).map_err(|refusal| refusal.of(name))?;
            Ok(Member { name: name.to_owned(), kind, source_type: Some(field.source_type().to_owned()) })
        };
        fields.iter().map(member).collect()
    }

    /// What the source calls the type: Debezium's source database, else the schema.
    fn source_type(&self) -> &str {
        let told = self.parameters.as_ref().and_then(|parameters| parameters.get("__debezium.source.column.type"));
        told.or(self.name.as_ref()).unwrap_or(&self.base)
    }

    fn kind(&self, dialect: Dialect) -> Result<Kind, Refusal> {
        let parameter = |name: &str| self.parameters.as_ref()?.get(name).map(|value| value.clone().into_owned());
        let named = self.name.as_deref().map(|name| logical::kind(name, &self.base, parameter, dialect));
        if let Some(kind) = named.transpose().map_err(Refusal::said)?.flatten() {
            return Ok(kind);
        }
        if let Some(kind) = logical::base(&self.base) {
            return Ok(kind);
        }
        let inner = |schema: &Option<Box<Self>>| {
            let schema = schema.as_ref().ok_or(Refusal::new("an array or a map in its schema lacks its elements"))?;
            schema.kind(dialect).map(Box::new)
        };
        match &*self.base {
            "array" => Ok(Kind::List(inner(&self.items)?)),
            "map" => Ok(Kind::Map(inner(&self.keys)?, inner(&self.values)?)),
            "struct" if self.fields.as_ref().is_some_and(|fields| !fields.is_empty()) => {
                self.members(dialect).map(Kind::Struct)
            }
            "struct" => Err(Refusal::new("a struct without fields")),
            other => Err(Refusal::said(format!("{other:?} is no type of Kafka Connect"))),
        }
    }
}
