//! The evaluator. It walks the checked tree itself, rather than leaving that to a library, because every step has to be
//! counted: who writes an expression, or sends what it looks at, shares the process with others.

use std::{collections::HashMap, sync::Arc};

use super::{
    ast::{Call, Element, Entry, Kind, Macro, MacroKind, Node, Pattern},
    fault::{Fault, Meter, Outcome},
    functions::{Function, Run, find, get},
    limits, regex,
    value::{Key, Value},
};

/// One evaluation.
pub(super) struct Evaluation {
    meter: Meter,
    /// The declared variables, then those of the macros around; the checker knows the places.
    stack: Vec<Value>,
    /// Patterns that aren't literals, as far as they have been met.
    patterns: HashMap<Arc<str>, Arc<Pattern>>,
}

impl Evaluation {
    pub fn new(variables: Vec<Value>) -> Self {
        Self { meter: Meter::new(), stack: variables, patterns: HashMap::new() }
    }

    pub fn eval(&mut self, node: &Node) -> Outcome {
        let value = self.meter.spend(1).and_then(|()| self.node(node));
        value.map_err(|fault| fault.placed(node.at))
    }

    fn node(&mut self, node: &Node) -> Outcome {
        match &node.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Variable(slot) => self.stack.get(*slot).cloned().ok_or_else(|| Fault::new("no such variable")),
            Kind::Name(name) => Err(Fault::new(format!("undeclared reference to '{name}'"))),
            Kind::Select { operand, field, optional } => {
                let operand = self.eval(operand)?;
                self.access(&operand, &field.value(), *optional)
            }
            Kind::Has { operand, field } => {
                let operand = self.eval(operand)?;
                has(&mut self.meter, &operand, field).map(Value::Bool)
            }
            Kind::Index { operand, index, optional } => {
                let operand = self.eval(operand)?;
                let index = self.eval(index)?;
                self.access(&operand, &index, *optional)
            }
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::And(nodes) => self.logical(nodes, false),
            Kind::Or(nodes) => self.logical(nodes, true),
            Kind::If(nodes) => {
                let [condition, then, other] = &**nodes;
                match self.eval(condition)? {
                    Value::Bool(true) => self.eval(then),
                    Value::Bool(false) => self.eval(other),
                    value => Err(not_bool(&value)),
                }
            }
            Kind::Call(call) => self.call(call),
            Kind::Macro(folded) => {
                let range = self.eval(&folded.range)?;
                let base = self.stack.len();
                let result = self.fold(folded, range);
                self.stack.truncate(base);
                result
            }
        }
    }

    fn access(&mut self, operand: &Value, key: &Value, optional: bool) -> Outcome {
        match operand {
            Value::Optional(_) => get(&mut self.meter, operand, key),
            _ if optional => Ok(find(&mut self.meter, operand, key)?.map_or(Value::Optional(None), Value::some)),
            _ => get(&mut self.meter, operand, key),
        }
    }

    fn list(&mut self, elements: &[Element]) -> Outcome {
        self.meter.create_entries(elements.len())?;
        let mut out = Vec::with_capacity(elements.len());
        for element in elements {
            match self.eval(&element.value)? {
                Value::Optional(value) if element.optional => out.extend(value.as_deref().cloned()),
                value if element.optional => return Err(not_optional(&value)),
                value => out.push(value),
            }
        }
        Ok(Value::List(out.into()))
    }

    fn map(&mut self, entries: &[Entry]) -> Outcome {
        self.meter.create_entries(entries.len().saturating_mul(2))?;
        let mut out = std::collections::BTreeMap::new();
        for entry in entries {
            let key = self.eval(&entry.key)?;
            let key = Key::of(&key).ok_or_else(|| Fault::new(format!("a {} can't be a key", key.type_name())))?;
            self.meter.look_up(&key, entries.len())?;
            match self.eval(&entry.value)? {
                Value::Optional(value) if entry.optional => out.extend(value.map(|value| (key, (*value).clone()))),
                value if entry.optional => return Err(not_optional(&value)),
                value => {
                    out.insert(key, value);
                }
            }
        }
        Ok(Value::Map(Arc::new(out)))
    }

    /// `||` (decided by a true operand) and `&&` (by a false one). What decides absorbs the faults of the others.
    fn logical(&mut self, nodes: &[Node], decisive: bool) -> Outcome {
        let mut fault = None;
        for node in nodes {
            if self.operand(node, decisive, &mut fault)? {
                return Ok(Value::Bool(decisive));
            }
        }
        fault.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    /// Whether the operand decides; keeps the first fault.
    fn operand(&mut self, node: &Node, decisive: bool, kept: &mut Option<Box<Fault>>) -> Outcome<bool> {
        let fault = match self.eval(node) {
            Ok(Value::Bool(value)) => return Ok(value == decisive),
            Ok(value) => not_bool(&value).placed(node.at),
            Err(fault) if fault.cut_off => return Err(fault),
            Err(fault) => fault,
        };
        kept.get_or_insert(fault);
        Ok(false)
    }

    fn call(&mut self, call: &Call) -> Outcome {
        let Some(function) = call.function else { return Err(Fault::new("unchecked expression")) };
        match (&function.run, call.args.as_slice()) {
            (Run::Inline, [target, other]) => self.or(function, target, other),
            (Run::Values(run) | Run::Conversion(run), [only]) => {
                let arg = self.eval(only)?;
                let args = [arg];
                run(&mut self.meter, &args).map_err(|fault| explain(fault, function, &args))
            }
            (Run::Values(run) | Run::Conversion(run), nodes) => {
                let mut args = Vec::with_capacity(nodes.len());
                for node in nodes {
                    args.push(self.eval(node)?);
                }
                run(&mut self.meter, &args).map_err(|fault| explain(fault, function, &args))
            }
            (Run::Matches, [text, pattern]) => {
                let text = self.eval(text)?;
                match &call.pattern {
                    Some(pattern) => self.matches(function, &text, pattern),
                    None => {
                        let pattern = self.eval(pattern)?;
                        self.matches_dynamic(function, &text, &pattern)
                    }
                }
            }
            _ => Err(Fault::no_overload()),
        }
    }

    fn or(&mut self, function: &Function, target: &Node, other: &Node) -> Outcome {
        match self.eval(target)? {
            value @ Value::Optional(Some(_)) if function.name == "or" => Ok(value),
            Value::Optional(Some(value)) => Ok((*value).clone()),
            Value::Optional(None) => self.eval(other),
            // A value of unknown type that is none of the optional ones, as the peer has it.
            value => Ok(value),
        }
    }

    fn matches(&mut self, function: &Function, text: &Value, pattern: &Pattern) -> Outcome {
        let Value::String(text) = text else {
            return Err(explain(Fault::no_overload(), function, std::slice::from_ref(text)));
        };
        regex::is_match(pattern, text, &mut self.meter).map(Value::Bool)
    }

    fn matches_dynamic(&mut self, function: &Function, text: &Value, pattern: &Value) -> Outcome {
        let Value::String(source) = pattern else {
            return Err(explain(Fault::no_overload(), function, &[text.clone(), pattern.clone()]));
        };
        let known = self.patterns.get(source).cloned();
        let pattern = match known {
            Some(pattern) => pattern,
            None => {
                if source.len() > limits::REGEX_PATTERN {
                    return Err(Fault::new(format!("a pattern of more than {} bytes", limits::REGEX_PATTERN)));
                }
                self.meter.spend(limits::REGEX_STEPS)?;
                let pattern =
                    regex::compile(source).map_err(|reason| Fault::new(format!("bad regular expression: {reason}")))?;
                self.patterns.insert(source.clone(), pattern.clone());
                pattern
            }
        };
        self.matches(function, text, &pattern)
    }

    fn fold(&mut self, folded: &Macro, range: Value) -> Outcome {
        if matches!(folded.kind, MacroKind::OptMap | MacroKind::OptFlatMap) {
            let Value::Optional(value) = range else { return Err(not_optional(&range)) };
            let Some(value) = value else { return Ok(Value::Optional(None)) };
            self.stack.push((*value).clone());
            let result = self.eval(&folded.body)?;
            return match (folded.kind, result) {
                (MacroKind::OptMap, result) => Ok(Value::some(result)),
                (_, result) => Ok(result),
            };
        }
        let items = match range {
            Value::List(list) => list,
            Value::Map(map) => {
                self.meter.create_entries(map.len())?;
                map.keys().map(Key::value).collect()
            }
            other => return Err(Fault::new(format!("a {} is neither list nor map", other.type_name()))),
        };
        let slot = self.stack.len();
        self.stack.push(Value::Null);
        match folded.kind {
            MacroKind::All => self.any(folded, slot, &items, false),
            MacroKind::Exists => self.any(folded, slot, &items, true),
            MacroKind::ExistsOne => {
                let mut found = 0usize;
                for item in items.iter() {
                    self.enter(slot, item)?;
                    found += usize::from(self.holds(&folded.body)?);
                }
                Ok(Value::Bool(found == 1))
            }
            _ => self.collect(folded, slot, &items),
        }
    }

    /// Gives the macro's variable its next value.
    fn enter(&mut self, slot: usize, item: &Value) -> Outcome<()> {
        self.meter.spend(1)?;
        if let Some(variable) = self.stack.get_mut(slot) {
            variable.clone_from(item);
        }
        Ok(())
    }

    fn holds(&mut self, condition: &Node) -> Outcome<bool> {
        match self.eval(condition)? {
            Value::Bool(value) => Ok(value),
            value => Err(not_bool(&value).placed(condition.at)),
        }
    }

    fn any(&mut self, folded: &Macro, slot: usize, items: &[Value], decisive: bool) -> Outcome {
        let mut fault = None;
        for item in items {
            self.enter(slot, item)?;
            if self.operand(&folded.body, decisive, &mut fault)? {
                return Ok(Value::Bool(decisive));
            }
        }
        fault.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn collect(&mut self, folded: &Macro, slot: usize, items: &[Value]) -> Outcome {
        let mut out = Vec::new();
        for item in items {
            self.enter(slot, item)?;
            let condition =
                if folded.kind == MacroKind::Filter { Some(&folded.body) } else { folded.condition.as_ref() };
            let kept = condition.map_or(Ok(true), |condition| self.holds(condition))?;
            if kept {
                self.meter.create_entries(1)?;
                out.push(if folded.kind == MacroKind::Filter { item.clone() } else { self.eval(&folded.body)? });
            }
        }
        Ok(Value::List(out.into()))
    }
}

fn has(meter: &mut Meter, operand: &Value, field: &Key) -> Outcome<bool> {
    match operand {
        Value::Optional(inner) => inner.as_deref().map_or(Ok(false), |inner| has(meter, inner, field)),
        _ => Ok(find(meter, operand, &field.value())?.is_some()),
    }
}

fn not_bool(value: &Value) -> Box<Fault> {
    Fault::new(format!("no such overload: a condition must be a bool, not a {}", value.type_name()))
}

fn not_optional(value: &Value) -> Box<Fault> {
    Fault::new(format!("no such overload: expected an optional, not a {}", value.type_name()))
}

/// Names the function and the types of its arguments, when no variant takes them.
pub(super) fn explain(mut fault: Box<Fault>, function: &Function, args: &[Value]) -> Box<Fault> {
    if fault.no_overload {
        let types: Vec<_> = args.iter().map(Value::type_name).collect();
        fault.message = format!("no such overload: {}({})", function.name, types.join(", "));
        fault.no_overload = false;
    }
    fault
}
